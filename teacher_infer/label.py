"""The verb ``label``: a teacher's ranking of the catalogue for every row of a data set.

Engines label a shard at a time and commit it; the same command resumes where it was stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.console import say
from cluster.dotted_path import find
from cluster.errors import ConfigError, StaleInputError, UserError
from cluster.identity import deciding
from cluster.probe import probed
from cluster.ray_session import ray_session
from cluster.storage import MANIFEST_FILE, Draft, Manifest, check_made_from, fingerprint, read_manifest, write_manifest
from cluster.text import aligned
from data_prep.metrics import CUTOFFS
from data_prep.reading import count_rows, longest_history, read_titles
from data_prep.schema import ITEMS_FILE
from data_prep.score_kind import ScoreScale
from teacher_infer import prompts
from teacher_infer.answers import Answers
from teacher_infer.config import RANKERS, LabelConfig
from teacher_infer.embeddings import embed_catalogue
from teacher_infer.estimate import estimate
from teacher_infer.job import Job
from teacher_infer.labeller import Done, Label
from teacher_infer.locate import locate_teacher
from teacher_infer.model_files import is_causal
from teacher_infer.pool import Pool
from teacher_infer.progress import Progress
from teacher_infer.rankers.base import Ranker, asked_by, takes_answers
from teacher_infer.read_catalogue import ReadCatalogue
from teacher_infer.stats import Stats
from teacher_infer.store import VERB, Shard, plan, score_scale


def label(config: LabelConfig) -> Path:
    """Label what is not labelled yet and write item embeddings, label shards and the teacher's own metrics.

    Raises:
        ConfigError: a value does not fit the data set, the teacher or the cluster.
        StaleInputError: data set or teacher are absent, unfinished or do not belong together, or the labels in the
            output directory were made from others.
        ModelError: vLLM cannot load the teacher.
        OutputError: the output directory holds something else.
        UserError: more rows fail than may.
    """
    job, inputs = _prepare(config)
    if config.dry_run:
        if config.limit:
            label(config.model_copy(update={"dry_run": False}))
        say(estimate(job.config, job.model))
        return config.output
    config, kind = job.config, find(RANKERS, config.ranking)
    shards = plan(config.dataset, config.splits, config.rows_per_shard, config.limit)
    job = replace(job, attempt=job.store.open(inputs | _settings(config), config.overwrite))
    missing = list(job.store.missing(shards))
    if missing or not job.store.finished or not _has_scales(config):
        (config.output / MANIFEST_FILE).unlink(missing_ok=True)
        paths = {"dataset": config.dataset, "teacher": job.model, "candidates": config.candidates}
        with ray_session(config.cluster), probed(config.output, paths, config.resources) as probe:
            _run(replace(job, probe=probe), kind, shards, missing)
        _finish(job, shards, inputs)
    else:
        say(f"{config.output}: every row is labelled already")
    say(_report(config, read_manifest(config.output, VERB)))
    return config.output


def _run(job: Job, kind: type[Ranker], shards: Sequence[Shard], missing: Sequence[Shard]) -> None:
    """Generate, embed and rank, one engine after another, so that a GPU holds one copy of the weights.

    Actors that embedded the titles go on with the rows where these need no other engine.
    """
    asked = asked_by(kind)
    if takes_answers(kind) and missing:
        with Pool(job) as pool:
            _read_catalogue(job, pool)
            unanswered = job.store.unanswered(missing)
            _watch(job, "answers", pool.work_through(Answers, unanswered), shards, unanswered)
    with Pool(job) as pool:
        _read_catalogue(job, pool)
        embed_catalogue(job, pool)
        if set(asked) <= {"embed"}:
            _watch(job, "", pool.work_through(Label, missing), shards, missing)
            return
    with Pool(job, share=len(asked)) as pool:
        _watch(job, "", pool.work_through(Label, missing), shards, missing)


def _prepare(config: LabelConfig) -> tuple[Job, dict[str, str]]:
    """The job with every default filled in, and the fingerprints of what it is made from."""
    dataset = read_manifest(config.dataset, "prepare")
    located = locate_teacher(config.teacher, config.ranking, config.dataset, dataset)
    inputs = {
        "dataset": dataset.fingerprint,
        "catalogue": fingerprint(config.dataset / ITEMS_FILE),
        "prompt": prompts.fingerprint(),
        "teacher": fingerprint(located.model),
    }
    if config.candidates:
        inputs["candidates"] = _check_candidates(config, config.candidates, dataset)
    adapter = config.vllm.lora or located.adapter
    if adapter:
        inputs["adapter"] = fingerprint(adapter)
    return Job(_resolved(config, adapter), located.model.absolute()), inputs


def _check_candidates(config: LabelConfig, candidates: Path, dataset: Manifest) -> str:
    """The fingerprint of first-stage lists that hold enough candidates for these rows.

    Raises:
        ConfigError: they are too short, or no way to rank asks for them.
        StaleInputError: they are of other rows.
    """
    if config.ranking != "score":
        raise ConfigError(f"--candidates is for --ranking score, not for {config.ranking}: leave it out")
    lists = read_manifest(candidates, VERB)
    check_made_from(candidates, lists, "dataset", config.dataset, dataset)
    leaves_out = config.exclude_history and not lists.config["exclude_history"]
    history = longest_history(config.dataset, config.splits) if leaves_out else 0
    if config.top_k > lists.config["top_k"] - history:
        less = f" less {history} of the history" if history else ""
        raise ConfigError(
            f"--top-k {config.top_k} asks for more than the {lists.config['top_k']} candidates per row in "
            f"{candidates}{less}"
        )
    absent = set(config.splits) - set(lists.config["splits"])
    if absent:
        raise StaleInputError(f"{candidates} holds no lists of {', '.join(sorted(absent))} rows: run `dllm2rec label`")
    return lists.fingerprint


def _resolved(config: LabelConfig, adapter: Path | None) -> LabelConfig:
    """The config with absolute paths and with what depends on the ranking; its top K must fit the catalogue."""
    items = len(read_titles(config.dataset))
    exclude = config.ranking == "embed" if config.exclude_history is None else config.exclude_history
    history = longest_history(config.dataset, config.splits) if exclude else 0
    if config.top_k > items - history:
        less = f" less {history} of the history" if history else ""
        raise ConfigError(f"--top-k {config.top_k} asks for more than the catalogue's {items} items{less}: lower it")
    paths = {"dataset": config.dataset, "output": config.output, "candidates": config.candidates}
    absolute = {name: path.absolute() for name, path in paths.items() if path}
    beams = config.top_k if config.ranking == "beam" and config.beams is None else config.beams
    dtype = config.vllm.dtype or ("auto" if config.resources.gpus else "float32")
    vllm = config.vllm.model_copy(update={"lora": adapter.absolute() if adapter else None, "dtype": dtype})
    limit = config.limit if any(count_rows(config.dataset, s) > (config.limit or 0) for s in config.splits) else None
    filled = {"exclude_history": exclude, "beams": beams, "vllm": vllm, "limit": limit}
    return config.model_copy(update=filled | absolute)


def _settings(config: LabelConfig) -> dict[str, Any]:
    """What the labels depend on beside their inputs."""
    settings = deciding(config)
    return settings | settings.pop("vllm")


def _read_catalogue(job: Job, pool: Pool) -> None:
    """Have the catalogue read in tokens once, if a causal model answers in them."""
    if job.longest is None and is_causal(job.model):
        list(pool.work_through(ReadCatalogue, [0]))


def _watch(job: Job, what: str, results: Iterator[Done], shards: Sequence[Shard], missing: Sequence[Shard]) -> None:
    """Hear of shards as they are done, with a line of progress now and then.

    Raises:
        UserError: more rows fail than may.
    """
    rows, to_do = sum(shard.rows for shard in shards), sum(shard.rows for shard in missing)
    done = rows - to_do + sum(job.store.stats(shard).rows for shard in missing) if not what else rows - to_do
    progress = Progress(", ".join(filter(None, [job.config.output.name, what])), rows, done)
    allowed = job.config.max_failures * rows
    for result in results:
        progress.add(result.stats)
        if progress.stats.failed > allowed:
            row_id, error = next(iter(result.errors.items()), (None, ""))
            raise UserError(
                f"{progress.stats.failed} of {rows} rows failed, more than --max-failures {job.config.max_failures:g} "
                f"allows (row {row_id}: {error}): fix the rows or the teacher; the same command resumes"
            )


def _finish(job: Job, shards: Sequence[Shard], inputs: dict[str, str]) -> None:
    """Add up the shards' figures into the manifest.

    Raises:
        StaleInputError: another job has begun in the directory meanwhile.
    """
    job.store.check_fence()
    draft, total = Draft(job.config.output), Stats()
    for split in job.config.splits:
        stats = Stats.total(job.store.stats(shard) for shard in shards if shard.split == split)
        draft.counts |= {split: stats.rows, f"{split}_failed": stats.failed}
        metrics = stats.metrics(job.config.top_k) | {"seconds": stats.seconds}
        draft.metrics |= {f"{split}_{name}": value for name, value in metrics.items()}
        if stats.rows:
            draft.metrics |= score_scale(job.config.output, split).metrics(split)
        total += stats
    draft.counts |= {
        "items": len(read_titles(job.config.dataset)),
        "dropped_history_titles": total.dropped_titles,
        "prompts": total.prompts,
        "prompt_tokens": total.prompt_tokens,
        "new_tokens": total.new_tokens,
    }
    draft.metrics |= {
        "valid_titles": total.valid / max(total.rows, 1),
        "prefix_cache_hits": total.cached_tokens / max(total.prompt_tokens, 1),
    }
    write_manifest(draft, verb=VERB, config=job.config, inputs=inputs)


def _has_scales(config: LabelConfig) -> bool:
    """Whether the manifest holds what training compares scores with; those of earlier versions do not."""
    manifest = read_manifest(config.output, VERB)
    labelled = [split for split in config.splits if manifest.counts.get(split)]
    return all(ScoreScale.from_metrics(manifest.metrics, split) for split in labelled)


def _report(config: LabelConfig, manifest: Manifest) -> str:
    names = [f"{metric}@{cutoff}" for metric in ("hr", "ndcg") for cutoff in CUTOFFS if cutoff <= config.top_k]
    metrics, counts = manifest.metrics, manifest.counts
    lines = [["teacher", "rows", "failed", *names, "seconds"]]
    for split in config.splits:
        values = [f"{metrics.get(f'{split}_{name}', float('nan')):.4f}" for name in names]
        rows = [f"{counts[split]:,}", f"{counts[f'{split}_failed']:,}"]
        lines.append([split, *rows, *values, f"{metrics[f'{split}_seconds']:.1f}"])
    if not counts["prompts"]:
        return aligned(lines)
    return (
        f"{aligned(lines)}\n{metrics['valid_titles']:.1%} of the answers are titles of the catalogue; "
        f"{counts['prompts']:,} prompts, {metrics['prefix_cache_hits']:.1%} of their {counts['prompt_tokens']:,} "
        f"tokens from the prefix cache, {counts['dropped_history_titles']:,} history titles had no room"
    )
