"""The verb ``recommend``: k titles with scores for one history, from the registry or a student directory."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.registry import Registry
from cluster.storage import output_directory, read_manifest
from cluster.text import aligned
from cluster.tracking import Tracker
from student_train.recommend_config import RecommendConfig
from student_train.recommender import Recommender

RECOMMENDATIONS_FILE = "recommendations.parquet"
RECOMMENDATIONS = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),  # from 1
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # the student's; training frequency for an empty history
    ]
)
_TITLE_WIDTH = 60


def recommend(config: RecommendConfig) -> Path:
    """Ask the model, print its titles, and write them to ``recommendations.parquet``.

    Raises:
        ModelError: the model or an item of the history is unknown, or k is too large.
        StaleInputError: the directory given as model holds no finished student.
        ConfigError: the tracking server does not answer.
        OutputError: the output directory holds something else.
    """
    answer, student = _ask_registry(config) if config.model.startswith("models:") else _ask_directory(config)
    table = as_table(answer)
    with output_directory(
        config.output, verb="recommend", config=config, inputs={"student": student}, overwrite=config.overwrite
    ) as draft:
        pq.write_table(table, draft.path / RECOMMENDATIONS_FILE)
        draft.counts["recommendations"] = table.num_rows
    print(render(table))
    return config.output


def as_table(answer: pd.DataFrame) -> pa.Table:
    """The answer to one history as rows, best first (schema RECOMMENDATIONS)."""
    ids, titles, scores = (list(answer[column][0]) for column in ("item_ids", "titles", "scores"))
    return pa.table([list(range(1, len(ids) + 1)), ids, titles, scores], schema=RECOMMENDATIONS)


def render(table: pa.Table) -> str:
    """The rows as text with aligned columns."""
    rows = table.to_pylist()
    shown = [r["title"] if len(r["title"]) <= _TITLE_WIDTH else r["title"][: _TITLE_WIDTH - 1] + "…" for r in rows]
    cells = [[str(r["rank"]), text, r["item_id"], f"{r['score']:.4f}"] for r, text in zip(rows, shown, strict=True)]
    return aligned([["rank", "title", "item id", "score"], *cells], left=(1, 2))


def _ask_registry(config: RecommendConfig) -> tuple[pd.DataFrame, str]:
    registry = Registry(Tracker(config.tracking))
    version = registry.resolve(config.model)
    question = pd.DataFrame({"history": [list(config.history)]})
    params = {"k": config.k, "exclude_history": config.exclude_history}
    return registry.load(version).predict(question, params=params), version.tags.get("fingerprint.student", "")


def _ask_directory(config: RecommendConfig) -> tuple[pd.DataFrame, str]:
    directory = Path(config.model)
    student = read_manifest(directory, "train").fingerprint
    return Recommender(directory).recommend([config.history], config.k, config.exclude_history), student
