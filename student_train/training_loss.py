"""The loss of one batch: a plain function of tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from student_train.batch import Batch
from student_train.cloze import cloze
from student_train.config import TrainConfig, dro_weight
from student_train.distillation import DistillationBatch, feature_based, response_based
from student_train.distilled_student import StudentOutput
from student_train.losses import student_loss
from student_train.losses.base import Items
from student_train.losses.dro import dro, propensity
from student_train.rows import Rows, TeacherLabels

Scorer = Callable[[Tensor, Tensor | None, Tensor | None], StudentOutput]
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
        self._drawn_by_N = smoothed_N / smoothed_N.sum()
        self.popularity_N = self._drawn_by_N.to(device)
        distillation = config.distillation
        self._compares_embeddings = bool(distillation.lam and feature_based(distillation.strategy))
        self._has_cloze = bool(distillation.cloze and distillation.uses_teacher_embeddings)

    def prepare(self, rows: Rows, generator: torch.Generator) -> Batch:
        """Draw what a batch needs, on the host: Cloze rows, if they are asked for, and negatives, if the loss has any.

        Args:
            rows: of the batch, with teacher lists if the student is distilled.
            generator: of what is drawn.
        """
        own, teacher, padding = len(rows), rows.teacher, len(self._drawn_by_N)
        if teacher and self._has_cloze:
            rows = rows.followed_by(cloze(rows, padding, generator))
        negative_BM, item_U = rows.target.new_empty(len(rows), 0), None
        if not self.student_loss.full:
            negative_BM = self.student_loss.draw(rows.target, rows.history, self._drawn_by_N, generator)
        if self._compares_embeddings:
            item_U = rows.history.unique()
            item_U = item_U[item_U < padding]
        return Batch(Rows(rows.row_id, rows.history, rows.target), own, teacher, negative_BM, item_U)

    def __call__(self, model: Scorer, batch: Batch, generator: torch.Generator) -> Losses:
        """The weighted parts of the loss of one batch.

        Args:
            model: scores the batch.
            batch: from :meth:`prepare`, on the model's device.
            generator: of what strategies draw.
        """
        distillation = self.config.distillation
        strategy = self.strategy if batch.teacher else None
        scores, feature_loss = self._score(model, batch, strategy is not None)
        own, hidden = scores.parted(batch.own)
        none, weight = own.every_BN.new_zeros(()), self.teacher_weight * distillation.lam
        losses = Losses(self._student_loss(own).mean(), none, weight * feature_loss, none)
        if hidden:
            losses.cloze = self.teacher_weight * distillation.cloze * self._student_loss(hidden).mean()
        if self.dro_weight:
            beta = self.config.loss.dro_beta
            losses.dro = self.dro_weight * dro(own.every_BN, own.items.target_B, self.propensity_N, beta)
        if strategy and batch.teacher:
            losses.distillation = weight * strategy(self._distillation_batch(own, batch, batch.teacher, generator))
        return losses

    def _score(self, model: Scorer, batch: Batch, ranked: bool) -> tuple[BatchScores, Tensor]:
        items = Items(batch.rows.target, batch.negative_BM, self.popularity_N)
        items_BM = torch.cat([items.target_B[:, None], items.negative_BM], dim=1)
        every = self.student_loss.full or self.dro_weight > 0 or ranked
        output = model(batch.rows.history, None if every else items_BM, batch.item_U)
        scores = output.scores.float()
        return BatchScores(scores, scores.gather(1, items_BM) if every else scores, items), output.feature_loss

    def _student_loss(self, scores: BatchScores) -> Tensor:
        negatives = scores.every_BN if self.student_loss.full else scores.scores_BM[:, 1:]
        return self.student_loss.loss(scores.scores_BM[:, 0], negatives, scores.items)

    def _distillation_batch(
        self, scores: BatchScores, batch: Batch, teacher: TeacherLabels, generator: torch.Generator
    ) -> DistillationBatch:
        return DistillationBatch(
            scores_BN=scores.every_BN,
            target_B=scores.items.target_B,
            history_BL=batch.rows.history[: batch.own],
            teacher=teacher,
            drawn_BM=scores.items.negative_BM,
            popularity_N=self.popularity_N,
            propensity_N=self.propensity_N,
            dro_weight=self.dro_weight,
            dro_beta=self.config.loss.dro_beta,
            config=self.config.distillation,
            student_loss=self.student_loss,
            generator=generator,
        )
