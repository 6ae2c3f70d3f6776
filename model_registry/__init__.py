"""The registry of students: register, promote, roll back, recommend."""
