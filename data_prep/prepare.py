"""The verb ``prepare``: raw logs and titles to a data set.

dllm2rec prepare --source recbole --interactions ml-100k.inter --items ml-100k.item --rows bigrec
"""

from pathlib import Path

import numpy as np

from cluster.console import say
from cluster.dotted_path import find
from cluster.errors import ConfigError, DataError
from cluster.storage import check_free, fingerprint, output_directory
from data_prep import synthetic
from data_prep.catalogue import build_catalogue
from data_prep.config import READERS, SYNTHETIC, PrepareConfig
from data_prep.log import build_log, interacted
from data_prep.readers.rawfiles import RawTable, Reader
from data_prep.sequences import select_rows
from data_prep.shards import write_items, write_sequences
from data_prep.splits import NAMES, TRAIN, check_cut_points, set_gate_aside, split_rows
from data_prep.yardsticks import measure_yardsticks, yardstick_table


def prepare(config: PrepareConfig) -> Path:
    """Write the data set described by ``config`` and return its directory.

    Raises:
        UserError: an option is missing, the raw data is faulty, or the output directory is taken; nothing is left
            behind then.
    """
    check_free(config.output, "prepare", config.overwrite)
    inputs = check_inputs(config)
    say(f"prepare: reading {config.source}")
    raw_log, raw_items = read_source(config)
    catalogue = build_catalogue(raw_items, config.max_title_length, config.bad_rows)
    log, log_counts = build_log(
        raw_log, catalogue, config.bad_rows, config.min_interactions_per_user, config.min_interactions_per_item
    )
    if config.catalogue == "interacted":
        catalogue, log = interacted(catalogue, log)
    say(f"prepare: {len(log.user):,} interactions, {len(catalogue.ids):,} items kept")
    rows = select_rows(log, config.rows)
    splits = split_rows(config.split, rows, log.timestamp[rows.target], config.cut_points)
    splits = set_gate_aside(splits, log.user[rows.target], log.user_ids, config.gate_share, config.seed)
    train_count = np.bincount(log.item[rows.target[splits == TRAIN]], minlength=len(catalogue.ids))
    with output_directory(
        config.output, verb="prepare", config=config, inputs=inputs, overwrite=config.overwrite
    ) as draft:
        write_items(draft.path, catalogue.ids, catalogue.titles, train_count)
        say(f"prepare: writing {len(splits):,} rows")
        draft.shards = write_sequences(draft.path, log, rows, splits, config.max_history, config.rows_per_shard)
        split_counts = dict(zip(NAMES, np.bincount(splits, minlength=len(NAMES)).tolist(), strict=True))
        idle = len(catalogue.ids) - len(np.unique(log.item))
        draft.counts.update({"items": len(catalogue.ids), "items_without_interaction": idle} | split_counts)
        draft.counts.update(log_counts | catalogue.counts)
        draft.metrics |= measure_yardsticks(draft.path)
    say(f"{summary(draft.counts, config.output)}\n{yardstick_table(draft.metrics)}")
    return config.output


def check_inputs(config: PrepareConfig) -> dict[str, str]:
    """Fingerprints of the raw files; refuses options that do not fit together.

    Raises:
        ConfigError: a file option or the cut points are missing or wrong.
        DataError: a file is absent or cannot be read.
    """
    if config.split == "timestamps":
        check_cut_points(config.cut_points)
    inputs: dict[str, str] = {}
    for option in ("interactions", "items") if config.source != SYNTHETIC else ():
        path: Path | None = getattr(config, option)
        if path is None:
            raise ConfigError(f"--source {config.source} needs --{option} FILE")
        if not path.exists():
            raise DataError(f"{path}: no such file: check --{option}")
        if path.is_dir() and config.source in set(READERS) - {"parquet"}:
            raise DataError(f"{path}: a directory where a file is expected: check --{option}")
        try:
            inputs[option] = fingerprint(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}): check --{option}") from error
    return inputs


def read_source(config: PrepareConfig) -> tuple[RawTable, RawTable]:
    """The raw log and the raw items of any source."""
    if config.interactions is None or config.items is None:
        return synthetic.generate(config.synthetic)
    read: Reader = find(READERS, config.source)
    return read(config.interactions, config.items, config.bad_rows)


LEFT_OUT = (
    *("interactions_malformed", "interactions_invalid", "interactions_duplicate", "users_with_one_interaction"),
    *("interactions_dropped", "users_dropped", "interactions_unmatched"),
    *(
        "items_malformed",
        "items_repeated",
        "items_without_title",
        "items_unmatched",
        "titles_of_page_source",
        "titles_cut",
    ),
)
"""Counts of what the data set lacks of the raw files, in the order in which they are said."""


def summary(counts: dict[str, int], output: Path) -> str:
    """One line for the user: what there is, what was left out and why, and how many items nobody chose."""
    sizes = ", ".join(f"{counts[name]:,} {name}" for name in ("items", "users", "interactions", *NAMES))
    left_out = ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in LEFT_OUT if counts.get(name))
    idle = counts["items_without_interaction"]
    advice = f"; {idle:,} items have no interaction, --catalogue interacted leaves them out" if idle else ""
    return f"{output}: {sizes}" + (f" ({left_out})" if left_out else "") + advice
