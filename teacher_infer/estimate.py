"""What a labelling job takes, said before it is begun: ``label --dry-run True``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster.files import local_copy, read_parquet
from cluster.storage import MANIFEST_FILE, read_manifest
from data_prep.reading import count_rows, read_titles, shards
from data_prep.schema import Split
from teacher_infer.config import GENERATING, LabelConfig
from teacher_infer.prompts import prompt, response


def estimate(config: LabelConfig, model: Path) -> str:
    """Rows, distinct prompts and tokens of a complete job, and its time at the rate of what is labelled already.

    Args:
        config: of the job; ``output`` may hold labels that were made with ``limit``.
        model: directory of the teacher's tokenizer.
    """
    from transformers import AutoTokenizer

    tokenizer, titles = AutoTokenizer.from_pretrained(local_copy(model)), read_titles(config.dataset)
    read = tokenizer([response(title) for title in titles], add_special_tokens=False)["input_ids"]
    lengths_N = np.fromiter(map(len, read), np.int64)
    rows = sum(count_rows(config.dataset, split) for split in config.splits)
    prompts, history_tokens = _distinct(config.dataset, config.splits, lengths_N)
    tokens = history_tokens + prompts * len(tokenizer(prompt([""]))["input_ids"])
    lines = [f"{rows:,} rows, {prompts:,} distinct prompts"]
    if config.ranking in GENERATING:
        lines[0] += f" of {tokens:,} tokens in"
    if config.ranking == "ground":
        lines[0] += f", about {round(prompts * min(lengths_N.mean() + 1, config.max_new_tokens)):,} tokens out"
    return "\n".join([*lines, _time(config, rows, prompts)])


def _distinct(dataset: Path, splits: Sequence[Split], lengths_N: np.ndarray) -> tuple[int, int]:
    """Distinct histories, and the tokens of their titles."""
    seen, tokens = set[int](), 0
    for file in [file for split in splits for file in shards(dataset, split)]:
        for history in read_parquet(file, ["history"])["history"].to_pylist():
            key = hash(tuple(history))
            if key not in seen:
                seen.add(key)
                tokens += int(lengths_N[history].sum())
    return len(seen), tokens


def _time(config: LabelConfig, rows: int, prompts: int) -> str:
    if not (config.output / MANIFEST_FILE).is_file():
        return "no rate is known: add --limit 1000 to measure it on the first rows of each split"
    manifest = read_manifest(config.output, "label")
    done = sum(manifest.counts.get(split, 0) for split in config.splits)
    seconds = sum(manifest.metrics.get(f"{split}_seconds", 0.0) for split in config.splits)
    asked = manifest.counts.get("prompts", 0)
    hours = (seconds / asked * prompts if asked else seconds / max(done, 1) * rows) / 3600
    kind, each = ("GPU", config.resources.gpus) if config.resources.gpus else ("CPU", config.resources.cpus)
    return (
        f"{done / max(seconds, 1e-9):,.0f} rows/s by one engine, measured on {done:,} rows: about {hours * each:,.2f} "
        f"{kind}-hours, {hours / config.resources.workers:,.2f} h with {config.resources.workers} of "
        "--resources.workers; loading engines is not counted"
    )
