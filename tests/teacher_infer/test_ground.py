"""Grounding of answers that need no engine: every answer is a title of the catalogue."""

import torch

from teacher_infer.config import LabelConfig
from teacher_infer.engine import VllmEngine
from teacher_infer.nearest import Catalogue
from teacher_infer.prompts import response
from teacher_infer.rankers.base import Answer, Rows
from teacher_infer.rankers.ground import Ground

TITLES = ["Paper", 'File Pocket, 5-1/4" Expansion', "Pen", 'File Pocket, 5-1/4" Expansion', " "]


def no_engine() -> VllmEngine:
    raise AssertionError("an engine was asked")


def test_a_title_with_a_quote_is_recognised_in_an_answer() -> None:
    items_NE = torch.eye(len(TITLES))
    catalogue = Catalogue(items_NE, "distance")
    ranker = Ground(TITLES, items_NE, catalogue, no_engine, LabelConfig(top_k=2))
    answers = [Answer(response(TITLES[item]), 0) for item in (0, 1)]
    ranked = ranker.rank(Rows([0, 1], [[0], [1]], torch.tensor([2, 1]), answers))
    assert ranked.items[:, 0].tolist() == [0, 1]
    assert ranked.scores[:, 0].tolist() == [0.0, 0.0]
    assert ranked.stats.valid == 2
