"""Constrained beam search over a catalogue against exhaustive scoring with transformers, on the same rows.

Run: ``python -m benchmarks.beam [--dataset DIR] [--teacher DIR]``. Without arguments the synthetic data set of 3,459
items (as many as Amazon Office has) and a teacher of two layers of 256, briefly trained on it. The exhaustive side
computes a prompt's keys and values once and scores all titles in batches of like length.
"""

import copy
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import materials
from cluster.ray_session import WORKER_ENVIRONMENT
from data_prep.reading import read_titles
from teacher_infer.config import VllmConfig
from teacher_infer.prompts import prompt, response

BATCH = 128


class Ranked(NamedTuple):
    """The best titles of each row [B][K] and the seconds for all rows, start-up apart."""

    titles: list[list[str]]
    seconds: float


def main() -> None:
    """Measure both sides and print the figures."""
    options = materials.parser(__doc__, rows=50)
    options.add_argument("--beams", type=int, default=10, help="Width of the beam and length of the list.")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset, teacher = materials.made(arguments, Path(folder))
        every = materials.histories(dataset, "test")
        spread = np.linspace(0, len(every) - 1, min(arguments.rows, len(every))).astype(int)
        titles, histories = read_titles(dataset), [every[row] for row in spread]
        exhaustive = by_transformers(teacher, titles, histories, arguments.beams, "cuda" if arguments.gpu else "cpu")
        beam = by_beam(teacher, titles, histories, arguments.beams, arguments.gpu)
    pairs = list(zip(exhaustive.titles, beam.titles, strict=True))
    figures = {
        "ratio_beam": exhaustive.seconds / beam.seconds,
        "beam_top1_agreement": float(np.mean([first[0] == second[0] for first, second in pairs])),
        "beam_list_overlap": float(np.mean([len({*first} & {*second}) / len({*first}) for first, second in pairs])),
        "rows_per_second_beam": len(histories) / beam.seconds,
        "rows_per_second_exhaustive": len(histories) / exhaustive.seconds,
    }
    print(f"{len(titles)} items, {len(histories)} rows, beam of {arguments.beams}, {torch.get_num_threads()} threads")
    for name, value in figures.items():
        print(f"{name:<28}{value:>10.3f}")
    print(json.dumps(figures))


def by_beam(teacher: Path, titles: Sequence[str], histories: Sequence[Sequence[str]], beams: int, gpu: bool) -> Ranked:
    """The product's own search."""
    os.environ.update(WORKER_ENVIRONMENT)
    from teacher_infer.engine import VllmEngine
    from teacher_infer.search import search
    from teacher_infer.trie import TitleTrie

    engine = VllmEngine(teacher, "generate", VllmConfig(gpu=gpu, max_num_seqs=256, gpu_memory_utilization=0.5))
    trie = TitleTrie(engine.title_tokens(titles))
    search(engine, histories[:2], trie, beams, beams)
    started = time.perf_counter()
    found = search(engine, histories, trie, beams, beams)
    seconds = time.perf_counter() - started
    return Ranked([[titles[item] for item in row.items] for row in found], seconds)


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
