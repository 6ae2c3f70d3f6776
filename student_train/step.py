"""The loss of one batch: a plain function of tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from student_train.config import TrainConfig
from student_train.distillation import RANKINGS, Lesson
from student_train.learner import Learned
from student_train.objectives import objective
from student_train.objectives.base import Items
from student_train.objectives.dro import dro, propensity
from student_train.rows import Rows, Taught

Scorer = Callable[[Tensor, Tensor | None], Learned]
"""A :class:`Learner`, or the engine that holds it."""


@dataclass
class Losses:
    """The parts of a batch's loss, each a scalar, weights applied."""

    student: Tensor
    dro: Tensor
    distillation: Tensor

    @property
    def total(self) -> Tensor:
        """L = L_student + α L_dro + λ L_d."""
        return self.student + self.dro + self.distillation


class Step:
    """Losses of the batches of one training."""

    def __init__(self, config: TrainConfig, train_count_N: Tensor, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.objective = objective(config.objective)
        self.ranking = RANKINGS.get(config.distillation.strategy) if config.distillation.lam else None
        self.lam = config.distillation.lam
        """Weight of the distillation, which the training loop lowers as the student overtakes the teacher."""
        self.dro_weight = dro_weight(config)
        self.propensity_N = propensity(train_count_N).to(device)
        smoothed_N = train_count_N.float() + 1
        self.popularity_N = (smoothed_N / smoothed_N.sum()).to(device)

    def __call__(self, model: Scorer, batch: Rows, generator: torch.Generator) -> Losses:
        """The weighted parts of the loss of one batch.

        Args:
            model: scores the batch.
            batch: its rows, with teacher lists if the student is distilled.
            generator: of all that is sampled.
        """
        ranking = self.ranking if batch.teacher else None
        sampled_BM = self.objective.draw(batch.target, batch.history, self.popularity_N, generator)
        items_BM = torch.cat([batch.target[:, None], sampled_BM], dim=1)
        if self.objective.full or self.dro_weight or ranking:
            learned = model(batch.history, None)
            every_BN = learned.scores.float()
            scores_BM = every_BN.gather(1, items_BM)
        else:
            learned = model(batch.history, items_BM)
            every_BN = scores_BM = learned.scores.float()
        negative_BM = scores_BM[:, 1:]
        items = Items(batch.target, sampled_BM, self.popularity_N)
        losses = Losses(
            self.objective.loss(scores_BM[:, 0], every_BN if self.objective.full else negative_BM, items),
            every_BN.new_zeros(()),
            self.lam * learned.matching,
        )
        if self.dro_weight:
            losses.dro = self.dro_weight * dro(
                every_BN, batch.target, self.propensity_N, self.config.objective.dro_beta
            )
        if ranking and batch.teacher:
            lesson = self._lesson(every_BN, negative_BM, batch.target, batch.teacher, generator)
            losses.distillation = self.lam * ranking(lesson)
        return losses

    def _lesson(
        self,
        every_BN: Tensor,
        negative_BM: Tensor,
        target_B: Tensor,
        teacher: Taught,
        generator: torch.Generator,
    ) -> Lesson:
        return Lesson(
            scores_BN=every_BN,
            target_B=target_B,
            teacher=teacher,
            negative_BM=negative_BM,
            popularity_N=self.popularity_N,
            propensity_N=self.propensity_N,
            dro_weight=self.dro_weight,
            dro_beta=self.config.objective.dro_beta,
            config=self.config.distillation,
            objective=self.objective,
            generator=generator,
        )


def dro_weight(config: TrainConfig) -> float:
    """Alpha of the DRO term, which the student dros has by default."""
    if config.objective.dro_weight is not None:
        return config.objective.dro_weight
    return 0.1 if config.student == "dros" else 0.0
