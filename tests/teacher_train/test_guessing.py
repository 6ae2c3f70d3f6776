"""A teacher is held against one that knows how often each token comes, and nothing else."""

import math

import numpy as np
import pytest
from torch import distributed as dist

from teacher_train.examples import IGNORED
from teacher_train.loop import guessing_loss
from teacher_train.train import verdict


def test_guessing_costs_the_entropy_of_the_labelled_tokens() -> None:
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    rows = [[IGNORED, IGNORED, 5, 7], [IGNORED, 5, 5]]
    examples = [{"input_ids": np.zeros(len(row), dtype=np.int32), "labels": np.array(row, np.int32)} for row in rows]
    assert guessing_loss(examples) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_a_teacher_no_better_than_guessing_is_called_so() -> None:
    assert verdict({"validation_loss": 1.5, "guessing_loss": 2.0}) == "validation loss 1.5000"
    said = verdict({"validation_loss": 7.25, "guessing_loss": 2.0})
    assert said.startswith("validation loss 7.2500, no better than guessing") and "lower --learning-rate" in said
