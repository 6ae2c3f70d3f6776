"""MLflow as it is used here: quiet, soon out of patience with a dead server, and with faults of one line."""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

# MLflow reads these when it is imported. A dead server is to fail in seconds, not after minutes of retries.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

import mlflow
from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from cluster.errors import ConfigError

__all__ = ["MlflowException", "ServerAway", "mlflow", "one_line_faults"]

logging.getLogger("alembic").setLevel(logging.WARNING)


class ServerAway(ConfigError):
    """The tracking server does not answer."""


@contextmanager
def one_line_faults(uri: str) -> Iterator[None]:
    """Turn what MLflow at ``uri`` raises in the block into one line.

    Raises:
        ServerAway: it does not answer.
        ConfigError: it refuses, or is no usable store.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, ImportError, OSError) as error:
        kind = ServerAway if _is_absence(error) else ConfigError
        raise kind(f"MLflow at --tracking.uri {uri} cannot be used: {_reason(error)}") from error


def _is_absence(error: BaseException | None) -> bool:
    """Whether a request got no answer; requests calls a malformed address a ValueError too."""
    while error is not None:
        if isinstance(error, RequestException):
            return not isinstance(error, ValueError)
        error = error.__cause__ or error.__context__
    return False


def _reason(error: Exception) -> str:
    """The first sentence of an error, on one line."""
    if _is_absence(error):
        return "no server answers there"
    return re.split(r"\.\s|\s\[SQL|\s\(Background", " ".join(str(error).split()))[0][:300]
