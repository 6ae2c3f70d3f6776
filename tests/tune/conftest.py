"""The hand-made data set and labels of the student tests serve the search too."""

from tests.student_train.conftest import dataset, labels

__all__ = ["dataset", "labels"]
