"""The small data set and labels of the student tests."""

from tests.student_train.conftest import dataset, labels

__all__ = ["dataset", "labels"]
