"""The verb ``recommend``: k titles for one history or a file of them, from the registry or a student directory."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from cluster.console import say
from cluster.errors import ConfigError
from cluster.files import local_copy, write_parquet, written_directory
from cluster.storage import Draft, clear, output_directory, read_manifest
from cluster.text import aligned
from model_registry.batch_scoring import recommend_many
from model_registry.config import RecommendConfig
from model_registry.loaded import fetch_student
from student_serve.recommender import Recommender

VERB = "recommend"
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
    """Ask the model; print the titles for one history, or answer a file shard by shard.

    Raises:
        ModelError: the model is unknown or incomplete, or k is too large.
        DataError: the file of histories is missing or has no column ``history`` of lists of text.
        StaleInputError: the directory given as model holds no finished student.
        ConfigError: the tracking server does not answer, or both a history and a file are given.
        OutputError: the output directory holds something else.
    """
    if config.histories and config.history:
        raise ConfigError("`history` and `histories` are both given: leave one out")
    inputs: dict[str, str] = {}
    with output_directory(config.output, verb=VERB, config=config, inputs=inputs, overwrite=config.overwrite) as draft:
        student = _student(config, draft.path / ".student")
        inputs["student"] = read_manifest(student, "train").fingerprint
        if config.histories:
            text = recommend_many(config, config.histories, student, draft)
        else:
            text = _one(config, student, draft)
        clear(draft.path / ".student")
    say(text)
    return config.output


def _student(config: RecommendConfig, pulled: Path) -> Path:
    """The student's directory; one of the registry is pulled to where the workers of other machines find it too."""
    if not config.model.startswith("models:"):
        return fetch_student(config.model, config.tracking, pulled)
    with written_directory(pulled) as folder:
        inside = fetch_student(config.model, config.tracking, folder.absolute()).relative_to(folder.absolute())
    return pulled / inside


def _one(config: RecommendConfig, student: Path, draft: Draft) -> str:
    recommender = Recommender(local_copy(student))
    answer = recommender.recommend([config.history], config.k, config.exclude_history)
    table = as_table(answer)
    skipped = answer["skipped"][0].as_py()
    write_parquet(table, draft.path / RECOMMENDATIONS_FILE)
    draft.counts |= {"recommendations": table.num_rows, "skipped": len(skipped)}
    return "\n".join([*(f"skipped: {hint(word, recommender.titles)}" for word in skipped), render(table)])


def as_table(answer: pa.Table) -> pa.Table:
    """The answer to one history as rows, best first (schema RECOMMENDATIONS)."""
    ids, titles, scores = (answer[column][0].as_py() for column in ("item_ids", "titles", "scores"))
    return pa.table([list(range(1, len(ids) + 1)), ids, titles, scores], schema=RECOMMENDATIONS)


def render(table: pa.Table) -> str:
    """The rows as text with aligned columns."""
    rows = table.to_pylist()
    cells = [[str(r["rank"]), _short(r["title"]), r["item_id"], f"{r['score']:.4f}"] for r in rows]
    return aligned([["rank", "title", "item id", "score"], *cells], left=(1, 2))


def hint(word: str, titles: Sequence[str]) -> str:
    """A line on a word that names no item, with the title that it may have meant."""
    lowered = {title.lower(): title for title in reversed(titles)}
    shown = _short(word)
    close = difflib.get_close_matches(shown.lower(), lowered, n=1, cutoff=0.0)
    nearest = f'the nearest title is "{lowered[close[0]]}"' if close else "no title is near it"
    return f'"{shown}" is neither an item id nor a title; {nearest}'


def _short(text: str) -> str:
    return text if len(text) <= _TITLE_WIDTH else text[: _TITLE_WIDTH - 1] + "…"
