"""Errors that a user can act on: one line that says what, where and what to do.

The command prints the line and ends with exit code 2; a traceback appears only with ``--debug``.
"""


class UserError(Exception):
    """Base of every error that the user, not the code, has to fix."""


class ConfigError(UserError):
    """A config value or option is unknown, malformed or out of range."""


class ClusterError(UserError):
    """No cluster answers, or it refuses the caller."""


class DataError(UserError):
    """Raw input is missing, unreadable or breaks its format; names the file and the row or field."""


class StaleInputError(UserError):
    """An input is absent, unfinished or made from something else; names the verb to run again."""


class OutputError(UserError):
    """An output directory already holds something else."""


class StorageError(UserError):
    """An object store cannot be reached, or refuses; names the path and says the words of the store."""


class ModelError(UserError):
    """A registered or exported model is missing, incomplete or cannot answer the request."""


class TrainingError(UserError):
    """A training cannot do what it is asked to: settings do not fit each other, or loss or scores are not finite."""
