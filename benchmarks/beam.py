"""Constrained beam search over a catalogue against exhaustive scoring with transformers, on the same rows.

Run: ``python -m benchmarks.beam [--quick] [--dataset DIR] [--teacher DIR]``. Without arguments the synthetic data set
of 3,459 items (as many as Amazon Office has) and a teacher of two layers of 256, briefly trained on it. The exhaustive
side computes a prompt's keys and values once and scores all titles in batches of like length. It takes seconds per
row: on more rows the beam is compared with the product's search without beams, which is exact; so is that on the first
rows.
"""

import copy
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.materials import made, parse_teacher, teacher_parser, title_rows
from benchmarks.options import report
from cluster.ray_session import WORKER_ENVIRONMENT
from data_prep.reading import read_titles
from teacher_infer.config import VllmConfig
from teacher_infer.prompts import prompt, response

BATCH = 128
_search: "Search"


class Ranked(NamedTuple):
    """The best titles of each row [B][K] and the seconds for all rows, start-up apart."""

    titles: list[list[str]]
    seconds: float


def main() -> None:
    """Measure both sides and print the figures."""
    options = teacher_parser(__doc__)
    options.add_argument("--rows", type=int, default=12, help="Rows that both sides work on.")
    options.add_argument("--beams", type=int, default=10, help="Width of the beam and length of the list.")
    options.add_argument("--more-rows", type=int, default=50, help="Rows for the agreement with our exact search.")
    arguments = parse_teacher(options, rows=2, beams=4, more_rows=4)
    with tempfile.TemporaryDirectory() as folder:
        dataset, teacher = made(arguments, Path(folder))
        titles, every = read_titles(dataset), title_rows(dataset, "test").histories
        histories, more = spread(every, arguments.rows), spread(every, arguments.more_rows)
        exhaustive = by_transformers(teacher, titles, histories, arguments.beams, "cuda" if arguments.gpu else "cpu")
        search = Searches(teacher, titles, arguments.gpu)
        beam = search(histories, arguments.beams, arguments.beams)
        exact = search(histories, 1, None)
        beam_more, exact_more = search(more, arguments.beams, arguments.beams), search(more, 1, None)
    figures = {
        "ratio_beam": exhaustive.seconds / beam.seconds,
        "beam_top1_agreement": agreement(beam, exhaustive),
        "beam_top1_agreement_more_rows": agreement(beam_more, exact_more),
        "exact_top1_agreement": agreement(exact, exhaustive),
        "rows_per_second_beam": len(histories) / beam.seconds,
        "rows_per_second_exhaustive": len(histories) / exhaustive.seconds,
    }
    report(figures)


def spread(histories: Sequence[tuple[str, ...]], rows: int) -> list[tuple[str, ...]]:
    """Some rows, evenly from the first to the last."""
    return [histories[at] for at in np.linspace(0, len(histories) - 1, min(rows, len(histories))).astype(int)]


def agreement(one: Ranked, other: Ranked) -> float:
    """Share of the rows in which both rank the same title first."""
    return float(np.mean([first[0] == second[0] for first, second in zip(one.titles, other.titles, strict=True)]))


class Searches:
    """The product's own search, an engine on every core, as ``label --resources.workers`` runs them; one on a GPU."""

    def __init__(self, teacher: Path, titles: Sequence[str], gpu: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._engines = [
            ProcessPoolExecutor(1, context, _open, (teacher, titles, gpu))
            for _ in range(1 if gpu else torch.get_num_threads())
        ]
        for ready in [engine.submit(os.getpid) for engine in self._engines]:
            ready.result()

    def __call__(self, histories: Sequence[Sequence[str]], k: int, beams: int | None) -> Ranked:
        """The best ``k``; exact for no beams. All engines begin at once, the seconds are those of the last."""
        count = len(self._engines)
        asked = [engine.submit(_ask, histories[at::count], k, beams) for at, engine in enumerate(self._engines)]
        found = [answer.result() for answer in asked]
        titles = [found[row % count].titles[row // count] for row in range(len(histories))]
        return Ranked(titles, max(part.seconds for part in found))


def _open(teacher: Path, titles: Sequence[str], gpu: bool) -> None:
    global _search  # one engine per process
    _search = Search(teacher, titles, gpu)


def _ask(histories: Sequence[Sequence[str]], k: int, beams: int | None) -> Ranked:
    return _search(histories, k, beams)


class Search:
    """One engine on one core."""

    def __init__(self, teacher: Path, titles: Sequence[str], gpu: bool) -> None:
        os.environ.update(WORKER_ENVIRONMENT)
        from teacher_infer.engine import VllmEngine
        from teacher_infer.trie import TitleTrie

        torch.set_num_threads(1)
        self._titles = titles
        self._engine = VllmEngine(teacher, "generate", VllmConfig(gpu_memory_utilization=0.5), gpu)
        self._trie = TitleTrie(self._engine.title_tokens(titles))

    def __call__(self, histories: Sequence[Sequence[str]], k: int, beams: int | None) -> Ranked:
        """The best ``k``; exact for no beams."""
        from teacher_infer.beam_search import search

        search(self._engine, histories[:2], self._trie, k, beams)
        self._engine.forget()
        started = time.perf_counter()
        found = search(self._engine, histories, self._trie, k, beams)
        seconds = time.perf_counter() - started
        return Ranked([[self._titles[item] for item in row.items] for row in found], seconds)


@torch.inference_mode()
def by_transformers(
    teacher: Path, titles: Sequence[str], histories: Sequence[Sequence[str]], k: int, device: str
) -> Ranked:
    """Every title's log-probability in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32).eval().to(device)
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    distinct = list(dict.fromkeys(titles))
    read = tokenizer([response(title) for title in distinct], add_special_tokens=False).input_ids
    order = sorted(range(len(distinct)), key=lambda title: len(read[title]))
    batches = [
        (part, _padded([[*read[title], tokenizer.eos_token_id] for title in part]).to(device))
        for part in (order[start : start + BATCH] for start in range(0, len(order), BATCH))
    ]

    def scores(history: Sequence[str]) -> torch.Tensor:
        before = tokenizer(prompt(history), return_tensors="pt").input_ids.to(device)
        read_prompt = model(before, use_cache=True, logits_to_keep=1)
        scores_N = torch.empty(len(distinct))
        for part, tokens_BL in batches:
            logprobs_B = _logprobs(model, read_prompt, tokens_BL)
            scores_N[part] = logprobs_B.cpu()
        return scores_N

    scores(histories[0])
    started = time.perf_counter()
    best = [[distinct[title] for title in scores(history).topk(k).indices] for history in histories]
    return Ranked(best, time.perf_counter() - started)


def _logprobs(model: Any, read_prompt: Any, tokens_BL: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """Log-probabilities [B] of titles, -1 where they have ended, after a prompt that is read already."""
    cache = copy.deepcopy(read_prompt.past_key_values)
    cache.batch_repeat_interleave(len(tokens_BL))
    later = model(tokens_BL[:, :-1].clamp(min=0), past_key_values=cache, use_cache=True).logits
    first = read_prompt.logits[:, -1:].expand(len(tokens_BL), -1, -1)
    logits = torch.cat([first, later], dim=1)
    chosen_BL = logits.gather(2, tokens_BL.clamp(min=0)[..., None])[..., 0] - logits.logsumexp(2)
    return chosen_BL.masked_fill(tokens_BL < 0, 0).sum(1)


def _padded(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    tensors = [torch.tensor(sequence) for sequence in sequences]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=-1)


if __name__ == "__main__":
    main()
