"""The script that MLflow stores with a registered student and runs to load it (models from code)."""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from student_serve.recommender import STUDENT_ARTIFACT, Recommender


class StudentModel(PythonModel):
    """Column ``history`` (lists of item ids or titles) in; ``item_ids``, ``titles``, ``scores``, ``skipped`` out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the student stored with the model.

        Raises:
            StudentError: a file is missing or damaged.
        """
        self._recommender = Recommender(Path(context.artifacts[STUDENT_ARTIFACT]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per history; ``params`` are ``k`` (10) and ``exclude_history`` (True).

        Raises:
            StudentError: k is out of range.
        """
        answers = self._recommender.recommend(list(model_input["history"]), **(params or {}))
        return pd.DataFrame(answers.to_pydict())


set_model(StudentModel())
