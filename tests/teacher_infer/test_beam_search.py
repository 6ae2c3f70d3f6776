"""Search on a real engine, against exhaustive scoring with transformers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch

from teacher_infer.beam_search import Found
from teacher_infer.config import LabelConfig
from teacher_infer.prompts import prompt, response
from teacher_infer.rankers.base import Ranked, Rows
from tests.teacher_fixtures import TITLES

pytestmark = pytest.mark.engine
# Two titles borne twice, some that begin others, one longer than a leap, two that read alike once quoted.
CATALOGUE = [
    *(*TITLES, "Red Castle", "Blue", "Green Island", "A very long title of many words that nobody chose"),
    *('"Red" Tower', "'Red' Tower", "Blue River 2", "Blue River 2: Gold"),
]
HISTORIES = [[TITLES[at] for at in history] for history in ((0, 1, 2), (5,), (20, 21, 22, 23, 0), (9, 10), (3,))]
TARGETS = [3, 6, 1, 27, 24]


@pytest.fixture(scope="module")
def exact(tiny_teacher) -> list[list[tuple[float, int]]]:
    """Log-probability and token count of every title after every history."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_teacher.teacher, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher.teacher)
    answers = [
        [*tokenizer(response(title), add_special_tokens=False).input_ids, tokenizer.eos_token_id] for title in CATALOGUE
    ]
    table = []
    for history in HISTORIES:
        before = tokenizer(prompt(history)).input_ids
        table.append([])
        for answer in answers:
            tokens = torch.tensor([before + answer])
            with torch.inference_mode():
                logprobs = model(tokens).logits[0, len(before) - 1 : -1].double().log_softmax(-1)
            total = logprobs.gather(1, tokens[0, len(before) :, None]).sum().item()
            table[-1].append((total, len(answer)))
    return table


class Engine(NamedTuple):
    """The search on the engine that all tests share."""

    ask: Any

    def search(self, rows: Sequence[int] = range(len(HISTORIES)), **options: Any) -> list[Found]:
        given = {name: [value[row] for row in rows] for name, value in options.items() if isinstance(value, list)}
        return self.ask(_search, [HISTORIES[row] for row in rows], **(options | given))


def _search(engine: Any, histories: list[list[str]], **options: Any) -> list[Found]:
    from teacher_infer.beam_search import search
    from teacher_infer.trie import TitleTrie

    return search(engine, histories, TitleTrie(engine.title_tokens(CATALOGUE)), **options)


@pytest.fixture(scope="module")
def engine(generator) -> Engine:
    return Engine(generator)


def ranking(scores: dict[int, float]) -> list[int]:
    """Items by score; those of one title, whose scores are the same, by index."""
    return sorted(scores, key=lambda item: (-round(scores[item], 4), item))


def check(found: Found, exact_row: list[tuple[float, int]], normalise: bool = False, kept: set[int] | None = None):
    scores = {
        item: total / length if normalise else total
        for item, (total, length) in enumerate(exact_row)
        if kept is None or item in kept
    }
    assert found.items == ranking(scores)[: len(found.items)]
    assert found.logprobs == pytest.approx([scores[item] for item in found.items], abs=1e-4)


@pytest.mark.parametrize("normalise", [False, True])
def test_without_beams_every_title_has_its_own_log_probability(engine, exact, normalise):
    for found, row in zip(engine.search(k=99, beams=None, normalise=normalise), exact, strict=True):
        assert len(found.items) == len(CATALOGUE)
        check(found, row, normalise)


@pytest.mark.parametrize("normalise", [False, True])
def test_without_beams_a_short_list_is_the_best_of_all(engine, exact, normalise):
    part = engine.search(k=5, beams=None, normalise=normalise)
    whole = engine.search(k=99, beams=None, normalise=normalise)
    for found, all_found, row in zip(part, whole, exact, strict=True):
        assert len(found.items) == 5
        check(found, row, normalise)
        assert found.tokens < all_found.tokens


def test_a_beam_finds_the_best_with_exact_log_probabilities(engine, exact):
    for found, row in zip(engine.search(k=6, beams=10), exact, strict=True):
        assert len(set(found.items)) == 6
        check(found, row)


@pytest.mark.parametrize("normalise", [False, True])
def test_a_narrow_beam_goes_on_until_the_certain_places_are(engine, exact, normalise):
    for found, row in zip(engine.search(k=6, beams=1, certain=3, normalise=normalise), exact, strict=True):
        assert len(found.items) == 6
        check(found._replace(items=found.items[:3], logprobs=found.logprobs[:3]), row, normalise)


def test_a_narrow_beam_widens_until_the_list_is_full(engine, exact):
    for found, row in zip(engine.search(k=len(CATALOGUE), beams=1), exact, strict=True):
        check(found, row)
        assert len(found.items) == len(CATALOGUE)


@pytest.mark.parametrize("beams", [10, None])
def test_excluded_items_are_left_out(engine, exact, beams):
    excluded = [[at for at in range(len(CATALOGUE)) if at % 5 != row] for row in range(len(HISTORIES))]
    for row, found in enumerate(engine.search(k=9, beams=beams, excluded=excluded)):
        kept = set(range(len(CATALOGUE))) - set(excluded[row])
        assert set(found.items) == kept
        check(found, exact[row], kept=kept)


def test_all_items_excluded_is_an_empty_list(engine):
    for found in engine.search(k=9, beams=3, excluded=[list(range(len(CATALOGUE)))] * len(HISTORIES)):
        assert (found.items, found.logprobs) == ([], [])


def test_candidates_are_ranked_among_themselves(engine, exact):
    candidates = [[1, 24, 0, 25, 26], [9], [2, 3, 4], [27, 26], [24]]
    for row, found in enumerate(engine.search(k=9, beams=None, candidates=candidates, excluded=[[1]] * 5)):
        kept = set(candidates[row]) - {1}
        assert set(found.items) == kept
        check(found, exact[row], kept=kept)


@pytest.mark.parametrize("normalise", [False, True])
def test_the_target_has_its_log_probability_ranked_or_not(engine, exact, normalise):
    rows = engine.search(k=1, beams=2, targets=[[target] for target in TARGETS], normalise=normalise)
    assert any(target not in found.items for found, target in zip(rows, TARGETS, strict=True))
    for found, target, row in zip(rows, TARGETS, exact, strict=True):
        total, length = row[target]
        assert found.target_logprobs[target] == pytest.approx(total / length if normalise else total, abs=1e-4)


def test_the_same_rows_give_the_same_bits_whatever_came_before(engine):
    targets = [[target] for target in TARGETS]
    first = engine.search(k=10, beams=4, targets=targets)
    engine.search([4, 2], k=20, beams=None)
    assert engine.search(k=10, beams=4, targets=targets) == first


def test_rows_that_differ_in_their_targets_only_are_searched_once(engine, exact):
    rows = Rows([0, 1, 2], [[0, 1, 2]] * 2 + [[5]], torch.tensor([3, 27, 6]))
    ranked = engine.ask(_rank, rows)
    assert ranked.stats.prompts == 2
    assert ranked.items[0].tolist() == ranked.items[1].tolist()
    expected = [exact[0][3][0], exact[0][27][0], exact[1][6][0]]
    assert ranked.target_scores.tolist() == pytest.approx(expected, abs=1e-4)


def _rank(engine: Any, rows: Rows) -> Ranked:
    from teacher_infer.rankers.likelihood import Likelihood

    return Likelihood(CATALOGUE, lambda: engine, LabelConfig(ranking="beam", top_k=3, beams=3)).rank(rows)


def test_neighbours_in_the_batch_change_no_rank(engine):
    together = engine.search(k=10, beams=4)
    for row, found in enumerate(together):
        (alone,) = engine.search([row], k=10, beams=4)
        assert alone.items == found.items
        assert alone.logprobs == pytest.approx(found.logprobs, abs=1e-5)


def _with_a_long_title(engine: Any) -> tuple[list[Found], list[Found]]:
    """Searches with room for little more than the prompts, without and with one title as long as half of it."""
    from teacher_infer.beam_search import search
    from teacher_infer.trie import TitleTrie

    # A hundred and more, so that the long one is less than a hundredth.
    titles = [f"{title} {number}" for title in TITLES for number in range(5)]
    room = engine.room
    engine.room = max(len(p.tokens) for p in engine.prompts(HISTORIES, 0)) + 20
    try:
        found = []
        for catalogue in (titles, [*titles, "Castle " * engine.room]):
            trie = TitleTrie(engine.title_tokens(catalogue))
            targets = [[len(catalogue) - 1]] * len(HISTORIES)
            found.append(search(engine, HISTORIES, trie, 5, 5, targets=targets))
        return found[0], found[1]
    finally:
        engine.room = room


def test_one_long_title_cuts_nobody_s_prompt(engine):
    without, with_long = engine.ask(_with_a_long_title)
    assert [found.dropped for found in with_long] == [0] * len(HISTORIES)
    assert [found.items for found in with_long] == [found.items for found in without]
    for one, other in zip(with_long, without, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert all(found.target_logprobs[len(TITLES) * 5] < 0 for found in with_long)


def test_prompts_are_read_from_the_cache(engine):
    for found in engine.search([2], k=10, beams=10):
        assert 0 < found.cached < found.tokens
