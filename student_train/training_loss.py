"""The loss of one batch: a plain function of tensors."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from student_train.cloze import cloze
from student_train.config import TrainConfig, dro_weight, on
from student_train.distillation import DistillationBatch, ranking
from student_train.distilled_student import StudentOutput
from student_train.memberwise import drawn
from student_train.losses import objective
from student_train.losses.base import Items
from student_train.losses.dro import dro, propensity
from student_train.rows import Rows, TeacherLabels

Scorer = Callable[[Tensor, Tensor | None], StudentOutput]
"""A :class:`DistilledStudent`, or the engine that holds it."""


@dataclass
class Losses:
    """The parts of a batch's loss, each a scalar, weights applied."""

    student: Tensor
    dro: Tensor
    distillation: Tensor
    cloze: Tensor

    @property
    def total(self) -> Tensor:
        """L = L_student + α L_dro + λ L_d + c L_cloze."""
        return self.student + self.dro + self.distillation + self.cloze


@dataclass
class BatchScores:
    """The student's logits of a batch."""

    every_BN: Tensor
    """Of the whole catalogue, where it was scored; else the same as ``scores_BM``."""
    scores_BM: Tensor
    """Of the target and the sampled negatives."""
    items: Items

    def parted(self, first: int) -> tuple["BatchScores", "BatchScores | None"]:
        """The logits of the ``first`` rows, and of the rest if there is one.

        Split, not sliced: the gradients of slices would each be filled up to all rows and then added.
        """
        sizes = [first, len(self.scores_BM) - first]
        if not sizes[1]:
            return self, None
        scores = self.scores_BM.split(sizes)
        every = scores if self.every_BN is self.scores_BM else self.every_BN.split(sizes)
        targets, negatives = self.items.target_B.split(sizes), self.items.negative_BM.split(sizes)
        own, rest = (
            BatchScores(every[part], scores[part], Items(targets[part], negatives[part], self.items.popularity_N))
            for part in (0, 1)
        )
        return own, rest


class TrainingLoss:
    """Losses of the batches of one training."""

    def __init__(self, config: TrainConfig, train_count_N: Tensor, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.objective = objective(config.loss)
        self.ranking = ranking(config.distillation.strategy) if config.distillation.lam else None
        self.teacher_weight: float | Tensor = 1.0
        """Share of the distillation's weights that counts: falls as the student overtakes the teacher."""
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
        return self.losses(model, batch, self.with_cloze(batch, generator), generator)

    def weighed(self, config: TrainConfig, teacher_weight: float | Tensor) -> "TrainingLoss":
        """The same step with the weights of another config and trust."""
        other = copy(self)
        other.config, other.teacher_weight = config, teacher_weight
        other.objective, other.dro_weight = objective(config.loss), dro_weight(config)
        return other

    def losses(self, model: Scorer, batch: Rows, both: Rows, generator: torch.Generator) -> Losses:
        """The same from :meth:`with_cloze`'s rows; of these, rows with a negative id do not count."""
        distillation = self.config.distillation
        strategy = self.ranking if batch.teacher else None
        scored, feature_loss = self._score(model, both, strategy is not None, generator)
        own, hidden = scored.parted(len(batch))
        none = own.every_BN.new_zeros(())
        losses = Losses(self._student_loss(own).mean(), none, self.teacher_weight * distillation.lam * feature_loss, none)
        if hidden:
            counts_H = both.row_id[len(batch) :] >= 0
            mean = (self._student_loss(hidden) * counts_H).sum() / counts_H.sum().clamp(min=1)
            losses.cloze = self.teacher_weight * distillation.cloze * mean
        if on(self.dro_weight):
            beta = self.config.loss.dro_beta
            losses.dro = self.dro_weight * dro(own.every_BN, batch.target, self.propensity_N, beta)
        if strategy and batch.teacher:
            lesson = self._lesson(own, batch.teacher, generator)
            losses.distillation = self.teacher_weight * distillation.lam * strategy(lesson)
        return losses

    def with_cloze(self, batch: Rows, generator: torch.Generator) -> Rows:
        """The batch, followed by its Cloze rows if they are asked for, so that the model runs once."""
        distillation = self.config.distillation
        if batch.teacher is None or not distillation.uses_teacher_embeddings or not on(distillation.cloze):
            return batch
        return batch.followed_by(cloze(batch, len(self.popularity_N), generator))

    def _score(self, model: Scorer, batch: Rows, ranked: bool, generator: torch.Generator) -> tuple[BatchScores, Tensor]:
        sampled_BM = drawn(self._draw, generator, batch.target, batch.history)
        items = Items(batch.target, sampled_BM, self.popularity_N)
        items_BM = torch.cat([batch.target[:, None], sampled_BM], dim=1)
        every = self.objective.full or on(self.dro_weight) or ranked
        learned = model(batch.history, None if every else items_BM)
        scores = learned.scores.float()
        return BatchScores(scores, scores.gather(1, items_BM) if every else scores, items), learned.feature_loss

    def _draw(self, generator: torch.Generator, target_B: Tensor, history_BL: Tensor) -> Tensor:
        return self.objective.draw(target_B, history_BL, self.popularity_N, generator)

    def _student_loss(self, scored: BatchScores) -> Tensor:
        negatives = scored.every_BN if self.objective.full else scored.scores_BM[:, 1:]
        return self.objective.loss(scored.scores_BM[:, 0], negatives, scored.items)

    def _lesson(self, scored: BatchScores, teacher: TeacherLabels, generator: torch.Generator) -> DistillationBatch:
        return DistillationBatch(
            scores_BN=scored.every_BN,
            target_B=scored.items.target_B,
            teacher=teacher,
            negative_BM=scored.scores_BM[:, 1:],
            popularity_N=self.popularity_N,
            propensity_N=self.propensity_N,
            dro_weight=self.dro_weight,
            dro_beta=self.config.loss.dro_beta,
            config=self.config.distillation,
            objective=self.objective,
            generator=generator,
        )
