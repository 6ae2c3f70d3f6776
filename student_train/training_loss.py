"""The loss of one batch: a plain function of tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from student_train.cloze import cloze
from student_train.config import TrainConfig, dro_weight
from student_train.distillation import DistillationBatch, response_based
from student_train.distilled_student import StudentOutput
from student_train.losses import student_loss
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
        self.student_loss = student_loss(config.loss)
        self.strategy = response_based(config.distillation.strategy) if config.distillation.lam else None
        self.teacher_weight: float = 1.0
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
        distillation = self.config.distillation
        strategy = self.strategy if batch.teacher else None
        both = self._with_cloze(batch, generator)
        scores, feature_loss = self._score(model, both, strategy is not None, generator)
        own, hidden = scores.parted(len(batch))
        none, weight = own.every_BN.new_zeros(()), self.teacher_weight * distillation.lam
        losses = Losses(self._student_loss(own).mean(), none, weight * feature_loss, none)
        if hidden:
            losses.cloze = self.teacher_weight * distillation.cloze * self._student_loss(hidden).mean()
        if self.dro_weight:
            beta = self.config.loss.dro_beta
            losses.dro = self.dro_weight * dro(own.every_BN, batch.target, self.propensity_N, beta)
        if strategy and batch.teacher:
            losses.distillation = weight * strategy(self._distillation_batch(own, batch.teacher, generator))
        return losses

    def _with_cloze(self, batch: Rows, generator: torch.Generator) -> Rows:
        """The batch, followed by its Cloze rows if they are asked for, so that the model runs once."""
        distillation = self.config.distillation
        if batch.teacher is None or not distillation.uses_teacher_embeddings or not distillation.cloze:
            return batch
        return batch.followed_by(cloze(batch, len(self.popularity_N), generator))

    def _score(
        self, model: Scorer, batch: Rows, ranked: bool, generator: torch.Generator
    ) -> tuple[BatchScores, Tensor]:
        sampled_BM = self.student_loss.draw(batch.target, batch.history, self.popularity_N, generator)
        items = Items(batch.target, sampled_BM, self.popularity_N)
        items_BM = torch.cat([batch.target[:, None], sampled_BM], dim=1)
        every = self.student_loss.full or self.dro_weight > 0 or ranked
        output = model(batch.history, None if every else items_BM)
        scores = output.scores.float()
        return BatchScores(scores, scores.gather(1, items_BM) if every else scores, items), output.feature_loss

    def _student_loss(self, scores: BatchScores) -> Tensor:
        negatives = scores.every_BN if self.student_loss.full else scores.scores_BM[:, 1:]
        return self.student_loss.loss(scores.scores_BM[:, 0], negatives, scores.items)

    def _distillation_batch(
        self, scores: BatchScores, teacher: TeacherLabels, generator: torch.Generator
    ) -> DistillationBatch:
        return DistillationBatch(
            scores_BN=scores.every_BN,
            target_B=scores.items.target_B,
            teacher=teacher,
            negative_BM=scores.scores_BM[:, 1:],
            popularity_N=self.popularity_N,
            propensity_N=self.propensity_N,
            dro_weight=self.dro_weight,
            dro_beta=self.config.loss.dro_beta,
            config=self.config.distillation,
            student_loss=self.student_loss,
            generator=generator,
        )
