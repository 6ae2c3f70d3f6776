"""The loss of one batch: a plain function of tensors."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from student_train.cloze import cloze
from student_train.config import TrainConfig, dro_weight, on
from student_train.distillation import Lesson, ranking
from student_train.learner import Learned
from student_train.memberwise import drawn
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
    cloze: Tensor

    @property
    def total(self) -> Tensor:
        """L = L_student + α L_dro + λ L_d + c L_cloze."""
        return self.student + self.dro + self.distillation + self.cloze


@dataclass
class Scored:
    """The student's logits of a batch."""

    every_BN: Tensor
    """Of the whole catalogue, where it was scored; else the same as ``scores_BM``."""
    scores_BM: Tensor
    """Of the target and the sampled negatives."""
    items: Items

    def parted(self, first: int) -> tuple["Scored", "Scored | None"]:
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
            Scored(every[part], scores[part], Items(targets[part], negatives[part], self.items.popularity_N))
            for part in (0, 1)
        )
        return own, rest


class Step:
    """Losses of the batches of one training."""

    def __init__(self, config: TrainConfig, train_count_N: Tensor, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.objective = objective(config.objective)
        self.ranking = ranking(config.distillation.strategy) if config.distillation.lam else None
        self.trusted: float | Tensor = 1.0
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

    def weighed(self, config: TrainConfig, trusted: float | Tensor) -> "Step":
        """The same step with the weights of another config and trust."""
        other = copy(self)
        other.config, other.trusted = config, trusted
        other.objective, other.dro_weight = objective(config.objective), dro_weight(config)
        return other

    def losses(self, model: Scorer, batch: Rows, both: Rows, generator: torch.Generator) -> Losses:
        """The same from :meth:`with_cloze`'s rows; of these, rows with a negative id do not count."""
        distillation = self.config.distillation
        strategy = self.ranking if batch.teacher else None
        scored, matching = self._score(model, both, strategy is not None, generator)
        own, hidden = scored.parted(len(batch))
        none = own.every_BN.new_zeros(())
        losses = Losses(self._student_loss(own).mean(), none, self.trusted * distillation.lam * matching, none)
        if hidden:
            counts_H = both.row_id[len(batch) :] >= 0
            mean = (self._student_loss(hidden) * counts_H).sum() / counts_H.sum().clamp(min=1)
            losses.cloze = self.trusted * distillation.cloze * mean
        if on(self.dro_weight):
            beta = self.config.objective.dro_beta
            losses.dro = self.dro_weight * dro(own.every_BN, batch.target, self.propensity_N, beta)
        if strategy and batch.teacher:
            lesson = self._lesson(own, batch.teacher, generator)
            losses.distillation = self.trusted * distillation.lam * strategy(lesson)
        return losses

    def with_cloze(self, batch: Rows, generator: torch.Generator) -> Rows:
        """The batch, followed by its Cloze rows if they are asked for, so that the model runs once."""
        distillation = self.config.distillation
        if batch.teacher is None or not distillation.joins or not on(distillation.cloze):
            return batch
        return batch.followed_by(cloze(batch, len(self.popularity_N), generator))

    def _score(self, model: Scorer, batch: Rows, ranked: bool, generator: torch.Generator) -> tuple[Scored, Tensor]:
        sampled_BM = drawn(self._draw, generator, batch.target, batch.history)
        items = Items(batch.target, sampled_BM, self.popularity_N)
        items_BM = torch.cat([batch.target[:, None], sampled_BM], dim=1)
        every = self.objective.full or on(self.dro_weight) or ranked
        learned = model(batch.history, None if every else items_BM)
        scores = learned.scores.float()
        return Scored(scores, scores.gather(1, items_BM) if every else scores, items), learned.matching

    def _draw(self, generator: torch.Generator, target_B: Tensor, history_BL: Tensor) -> Tensor:
        return self.objective.draw(target_B, history_BL, self.popularity_N, generator)

    def _student_loss(self, scored: Scored) -> Tensor:
        negatives = scored.every_BN if self.objective.full else scored.scores_BM[:, 1:]
        return self.objective.loss(scored.scores_BM[:, 0], negatives, scored.items)

    def _lesson(self, scored: Scored, teacher: Taught, generator: torch.Generator) -> Lesson:
        return Lesson(
            scores_BN=scored.every_BN,
            target_B=scored.items.target_B,
            teacher=teacher,
            negative_BM=scored.scores_BM[:, 1:],
            popularity_N=self.popularity_N,
            propensity_N=self.propensity_N,
            dro_weight=self.dro_weight,
            dro_beta=self.config.objective.dro_beta,
            config=self.config.distillation,
            objective=self.objective,
            generator=generator,
        )
