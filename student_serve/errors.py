"""The errors of a student where nothing else of this project is installed."""


class StudentError(Exception):
    """A student's files are missing or damaged, or it cannot answer the request; one line that says what to do."""
