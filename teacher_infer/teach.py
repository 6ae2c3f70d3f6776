"""The verb ``teach``: a teacher's ranking of the catalogue for every row of a data set.

Generation and embedding run in vLLM workers on Ray Data; rankings are computed and written shard by shard.
"""

from pathlib import Path

from safetensors.torch import save_file

from cluster.errors import ConfigError
from cluster.ray_session import ray_session
from cluster.storage import check_free, fingerprint, output_directory, read_manifest
from cluster.text import aligned
from data_prep.metrics import CUTOFFS
from data_prep.reading import longest_history, read_titles
from data_prep.schema import EMBEDDINGS_FILE, EMBEDDINGS_TENSOR
from teacher_infer.config import TeachConfig
from teacher_infer.grounding import Catalogue
from teacher_infer.labels import label_split
from teacher_infer.locate import locate_teacher
from teacher_infer.teachers import open_teacher

VERB = "teach"


def teach(config: TeachConfig) -> Path:
    """Label the rows of ``config.splits`` and write item embeddings, label shards and the teacher's own metrics.

    Raises:
        ConfigError: a value does not fit the data set, the teacher or the cluster.
        StaleInputError: data set or teacher are absent, unfinished or do not belong together.
        ModelError: vLLM cannot load the teacher.
        OutputError: the output directory holds something else.
    """
    check_free(config.output, VERB, config.overwrite)
    dataset = read_manifest(config.dataset, "prepare")
    model = locate_teacher(config.teacher, config.ranking, config.dataset, dataset)
    titles = read_titles(config.dataset)
    config = _resolved(config, len(titles))
    inputs = {"dataset": dataset.fingerprint, "teacher": fingerprint(model)}
    with (
        output_directory(config.output, verb=VERB, config=config, inputs=inputs, overwrite=config.overwrite) as draft,
        ray_session(config.cluster),
    ):
        teacher = open_teacher(model, titles, config)
        save_file({EMBEDDINGS_TENSOR: teacher.embeddings_NE}, draft.path / EMBEDDINGS_FILE)
        catalogue = Catalogue(teacher.embeddings_NE, teacher.kind)
        for split in config.splits:
            score = label_split(teacher, catalogue, split, config, draft.path)
            draft.counts[split] = score.rows
            metrics = score.metrics(config.top_k) | {"seconds": score.seconds}
            draft.metrics |= {f"{split}_{name}": value for name, value in metrics.items()}
        draft.counts |= {"items": len(titles), "dropped_history_titles": teacher.dropped}
    print(_report(config, draft.metrics))
    return config.output


def _resolved(config: TeachConfig, items: int) -> TeachConfig:
    """The config with its default for ``exclude_history`` filled in; its top K must fit the catalogue."""
    exclude = config.ranking == "embed" if config.exclude_history is None else config.exclude_history
    history = longest_history(config.dataset, config.splits) if exclude else 0
    if config.top_k > items - history:
        less = f" less {history} of the history" if history else ""
        raise ConfigError(f"--top-k {config.top_k} asks for more than the catalogue's {items} items{less}: lower it")
    return config.model_copy(update={"exclude_history": exclude})


def _report(config: TeachConfig, metrics: dict[str, float]) -> str:
    names = [f"{metric}@{cutoff}" for metric in ("hr", "ndcg") for cutoff in CUTOFFS if cutoff <= config.top_k]
    lines = [["teacher", *names, "seconds"]]
    for split in config.splits:
        values = [f"{metrics.get(f'{split}_{name}', float('nan')):.4f}" for name in names]
        lines.append([split, *values, f"{metrics[f'{split}_seconds']:.1f}"])
    return aligned(lines)
