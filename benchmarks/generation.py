"""Generated and embedded titles against transformers, with the same prompts; two engines against one.

Run: ``python -m benchmarks.generation [--quick] [--dataset DIR] [--teacher DIR]``. Without arguments as
``benchmarks.beam``. Both sides answer the same rows greedily and embed the answers: transformers in batches of 64,
every row, on all cores; ours by one engine on one core, as the product places it. Start-up is not counted.
``ratio_generate`` is of rows with distinct histories, ``ratio_generate_duplicates`` of rows as they come.
``scaling_two_engines`` runs the verb ``label`` with one and with two actors of one CPU each.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.materials import made, parse_teacher, teacher_parser, title_rows
from benchmarks.options import report
from cluster.config import ClusterConfig, ResourcesConfig
from cluster.ray_session import WORKER_ENVIRONMENT
from data_prep.schema import label_files
from teacher_infer.config import LabelConfig, VllmConfig
from teacher_infer.engine import VllmEngine
from teacher_infer.label import label
from teacher_infer.prompts import embedded, prompt, title_of

BATCH, NEW_TOKENS, WARM = 64, 32, 64
CORES = torch.get_num_threads()

Histories = Sequence[tuple[str, ...]]


class Answered(NamedTuple):
    """The title that each row was answered with, and the seconds for all rows."""

    titles: list[str]
    seconds: float


def main() -> None:
    """Measure and print the figures."""
    options = teacher_parser(__doc__)
    options.add_argument("--rows", type=int, default=2000, help="Rows that both sides work on.")
    options.add_argument(
        "--shard", type=int, default=128, help="Rows per shard where two engines are compared with one."
    )
    arguments = parse_teacher(options, rows=64, shard=32)
    os.environ.update(WORKER_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        dataset, teacher = made(arguments, Path(folder))
        figures = scaling(teacher, dataset, Path(folder), arguments)
        rows = title_rows(dataset, "train").histories
        distinct = list(dict.fromkeys(rows))[: arguments.rows]
        ours, theirs = Ours(teacher, arguments.gpu), Theirs(teacher, arguments.gpu)
        figures |= compare("ratio_generate", ours, theirs, distinct)
        figures |= compare("ratio_generate_duplicates", ours, theirs, rows[: arguments.rows])
    report(figures)


class Ours:
    """The product's engines: prompts and titles that read alike are computed once."""

    def __init__(self, teacher: Path, gpu: bool) -> None:
        config = VllmConfig(gpu_memory_utilization=0.3)
        self._generator, self._embedder = (VllmEngine(teacher, task, config, gpu) for task in ("generate", "embed"))

    def __call__(self, histories: Histories) -> Answered:
        """Answer and embed."""
        torch.set_num_threads(1)
        started = time.perf_counter()
        distinct = list(dict.fromkeys(histories))
        generated = self._generator.generate(distinct, NEW_TOKENS)
        titles = dict(zip(distinct, (title_of(answer.text) for answer in generated), strict=True))
        self._embedder.embed([embedded(title) for title in dict.fromkeys(titles.values())])
        return Answered([titles[history] for history in histories], time.perf_counter() - started)

    def forget(self) -> None:
        """Empty the prefix cache."""
        self._generator.forget()


class Theirs:
    """Transformers in batches of rows."""

    def __init__(self, teacher: Path, gpu: bool) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._device = "cuda" if gpu else "cpu"
        self._model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32).eval().to(self._device)
        self._tokenizer = AutoTokenizer.from_pretrained(teacher, padding_side="left")

    @torch.inference_mode()
    def __call__(self, histories: Histories) -> Answered:
        """Answer and embed."""
        torch.set_num_threads(CORES)
        started = time.perf_counter()
        titles: list[str] = []
        for start in range(0, len(histories), BATCH):
            titles += self._answer([prompt(history) for history in histories[start : start + BATCH]])
        for start in range(0, len(titles), BATCH):
            self._embed([embedded(title) or " " for title in titles[start : start + BATCH]])
        return Answered(titles, time.perf_counter() - started)

    def _answer(self, prompts: list[str]) -> list[str]:
        read = self._read(prompts)
        output = self._model.generate(
            **read, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=self._tokenizer.pad_token_id
        )
        texts = self._tokenizer.batch_decode(output[:, read["input_ids"].shape[1] :], skip_special_tokens=True)
        return [title_of(text) for text in texts]

    def _embed(self, texts: list[str]) -> torch.Tensor:
        return self._model.model(**self._read(texts)).last_hidden_state[:, -1]

    def _read(self, texts: list[str]) -> Any:  # noqa: ANN401  # a BatchEncoding
        read = self._tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
        return read.to(self._device)


def compare(name: str, ours: Ours, theirs: Theirs, histories: Histories) -> dict[str, float]:
    """Rows per second of both sides and how many answers are the same."""
    for side in (ours, theirs):
        side(histories[-WARM:])
    ours.forget()
    mine, other = ours(histories), theirs(histories)
    same = sum(a == b for a, b in zip(mine.titles, other.titles, strict=True)) / len(histories)
    return {
        name: other.seconds / mine.seconds,
        f"{name}_rows_per_second": len(histories) / mine.seconds,
        f"{name}_transformers": len(histories) / other.seconds,
        f"{name}_same_answers": same,
    }


def scaling(teacher: Path, dataset: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Rows per second of one and of two actors, after each has labelled its first shards; nothing with one GPU."""
    if arguments.gpu and torch.cuda.device_count() < 2:
        print("one GPU only: two engines are not compared with one", flush=True)
        return {}
    rates = {}
    for workers in (1, 2):
        output = folder / f"labels-{workers}"
        config = LabelConfig(
            dataset=dataset,
            teacher=str(teacher),
            splits=("train",),
            rows_per_shard=arguments.shard,
            resources=ResourcesConfig(workers=workers, gpus=int(arguments.gpu)),
            cluster=ClusterConfig(cpus=2),
            output=output,
        )
        label(config)
        ends = sorted(file.stat().st_mtime for file in label_files(output, "train"))
        begun = 2 * workers  # a second shard of each: its engine runs
        rates[workers] = (len(ends) - begun) * config.rows_per_shard / (ends[-1] - ends[begun - 1])
    return {
        "scaling_two_engines": rates[2] / rates[1],
        "rows_per_second_one_engine": rates[1],
        "rows_per_second_two_engines": rates[2],
    }


if __name__ == "__main__":
    main()
