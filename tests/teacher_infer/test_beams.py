"""Beam search on log-probabilities that are known."""

from teacher_infer.beams import Beam, BeamSearch

END = 0


def children(beam: Beam, logprobs: dict[int, float]) -> list[Beam]:
    return [Beam([*beam.tokens, token], beam.logprob + value) for token, value in logprobs.items()]


def run(width: int, table: dict[tuple[int, ...], dict[int, float]], most: int) -> list[int]:
    search = BeamSearch(width)
    for left in range(most - 1, -1, -1):
        found = [child for beam in search.open for child in children(beam, table.get(tuple(beam.tokens), {9: -9.0}))]
        search.take(found, END, left)
    return search.best()


def test_answers_compare_by_their_own_length():
    # Ended at once: -1.0 a token. Three tokens: -2.4, or -0.8 a token; divided by 100 more tokens of a prompt it loses.
    table = {(): {END: -1.0, 1: -0.7}, (1,): {2: -0.7}, (1, 2): {END: -1.0}}
    assert run(2, table, 5) == [1, 2, END]


def test_one_beam_is_greedy():
    table = {(): {1: -0.1, 2: -0.2}, (1,): {END: -5.0}, (2,): {END: -0.1}}
    assert run(1, table, 4) == [1, END]


def test_a_wider_beam_finds_what_a_narrow_one_misses():
    table = {(): {1: -0.1, 2: -0.2}, (1,): {END: -5.0}, (2,): {END: -0.1}}
    assert run(2, table, 4) == [2, END]


def test_an_answer_that_does_not_end_is_given_as_far_as_it_goes():
    assert run(2, {(): {1: -0.1}, (1,): {1: -0.1}, (1, 1): {1: -0.1}}, 3) == [1, 1, 1]


def test_the_search_ends_when_no_open_beam_can_win():
    search = BeamSearch(1)
    search.take([Beam([END], -0.1), Beam([1], -3.0)], END, 9)
    assert search.open == []
