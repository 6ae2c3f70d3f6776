"""Members that advance in one batched step: a student each, of one shape."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from cluster.errors import TrainingError
from student_train.alike import WEIGHTS, in_effect
from student_train.config import TrainConfig
from student_train.evaluation import evaluate, metric_means
from student_train.distilled_student import StudentOutput, fold
from student_train.loop import (
    TrainingData,
    TrainerState,
    build,
    epoch_seed,
    out_of_patience,
    not_finite,
    plain_student,
    trust,
)
from student_train.memberwise import Streams, training_together
from student_train.rows import Rows, side_by_side
from student_train.stack import Stack
from student_train.training_loss import TrainingLoss

GoesOn = Callable[[int, TrainerState], bool]
"""Called after every evaluation of a member with its place and progress; False ends its training."""


@dataclass
class Member:
    """One of the students."""

    place: int
    config: TrainConfig
    progress: TrainerState = field(default_factory=TrainerState)
    teacher_weight: float = 1.0
    error: TrainingError | None = None
    stopped: bool = False

    @property
    def finished(self) -> bool:
        """Whether it leaves the batch."""
        ended = self.progress.epoch >= self.config.epochs or out_of_patience(self.progress, self.config)
        return self.stopped or self.error is not None or ended


class Cohort:
    """The members of one batched step."""

    def __init__(
        self, members: Sequence[Member], data: TrainingData, without: Mapping[str, float], device: torch.device
    ) -> None:
        """``without`` are the metrics of item transitions; see :func:`student_train.loop.trust`."""
        self.members = list(members)
        self.data = data
        self.without = without
        self.device = device
        configs = [member.config for member in members]
        weights = [dict(build(config, data).named_parameters()) for config in configs]
        self.stack = Stack(weights, configs, device)
        self.learner = build(configs[0], data).to(device)
        self.step = TrainingLoss(configs[0], data.train_count, device)

    def epoch(self, on_evaluation: GoesOn) -> None:
        """One pass over the rows, evaluations, and the departure of those that are finished."""
        started = time.perf_counter()
        for member in self.members:
            member.progress.epoch += 1
            best = member.progress.best
            member.teacher_weight = trust(member.config, self.data.teacher_ndcg, self.without, best)
        losses = self._train()
        share = (time.perf_counter() - started) / len(self.members)
        for at, member in enumerate(self.members):
            member.progress.seconds += share
            epoch, every = member.progress.epoch, member.config.evaluate_every
            if not member.error and (epoch % every == 0 or epoch == member.config.epochs):
                self._evaluate(at, float(losses[at]), on_evaluation)
        kept = [at for at, member in enumerate(self.members) if not member.finished]
        if len(kept) < len(self.members):
            self.members = [self.members[at] for at in kept]
            self.stack.keep(kept)

    def _train(self) -> Tensor:
        """Mean losses [M] of an epoch."""
        config = self.members[0].config
        steps = -(-self.data.total_rows // config.batch)
        streams = self._streams()
        rows = self.data.train
        order = torch.stack([rows.order(config.batch, steps, own) for own in streams.samples])
        weights = self._weights()
        self.learner.train()
        total = torch.zeros(len(self.members), device=self.device)
        for number in range(steps):
            batch = rows.take(order[:, number])
            both = self._both(batch, streams).to(self.device)
            batch = batch.to(self.device)
            with training_together(streams):
                losses = vmap(self._loss)(self.stack.parameters, weights, batch.tensors(), both.tensors())
            self._note(losses, number, batch)
            losses.sum().backward()
            self._spare_padding()
            self.stack.step()
            total += losses.detach()
        return total / steps

    def _loss(
        self, parameters: dict[str, Tensor], weights: dict[str, Tensor], batch: list[Tensor], both: list[Tensor]
    ) -> Tensor:
        """Of one member, under ``vmap``."""

        def score(history_BL: Tensor, items_BM: Tensor | None) -> StudentOutput:
            learned: StudentOutput = functional_call(self.learner, parameters, (history_BL, items_BM))
            return learned

        self.learner.set_embedding_weight(weights["joined"])
        step = self.step.weighed(_with(self.members[0].config, weights), weights["teacher_weight"])
        # The streams of the members are drawn from instead of this one.
        return step.losses(score, Rows.of(batch), Rows.of(both), torch.default_generator).total

    def _evaluate(self, at: int, loss: float, on_evaluation: GoesOn) -> None:
        member, started = self.members[at], time.perf_counter()
        self.learner.set_embedding_weight(member.config.distillation.ed_weight * member.teacher_weight)
        state = fold(self.stack.state(at), self.learner)
        student = plain_student(member.config, self.data, state).to(self.device)
        try:
            sums = evaluate(student, self.data.validation, self.device, member.config.filter_history)
        except TrainingError as error:
            member.error = error
            return
        member.progress.seconds += time.perf_counter() - started
        member.progress.record(metric_means(sums) | {"loss": loss}, state)
        member.stopped = not on_evaluation(member.place, member.progress)

    def _streams(self) -> Streams:
        seeds = [epoch_seed(member.config, member.progress.epoch) for member in self.members]
        return Streams(
            samples=[torch.Generator().manual_seed(seed) for seed in seeds],
            masks=[torch.Generator(self.device).manual_seed(seed) for seed in seeds],
            dropout=[member.config.model.dropout for member in self.members],
            rows=[],
        )

    def _weights(self) -> dict[str, Tensor]:
        """Numbers per member [M]: trust, weight of the projected embeddings, and the loss weights that differ."""
        configs = [member.config for member in self.members]
        values = {name: [in_effect(config, name) for config in configs] for name in WEIGHTS}
        differing = {name: found for name, found in values.items() if len(set(found)) > 1}
        teacher_weight = [member.teacher_weight for member in self.members]
        joined = [config.distillation.ed_weight * share for config, share in zip(configs, teacher_weight, strict=True)]
        numbers = differing | {"teacher_weight": teacher_weight, "joined": joined}
        return {name: torch.tensor(found, dtype=torch.float32, device=self.device) for name, found in numbers.items()}

    def _both(self, batch: Rows, streams: Streams) -> Rows:
        """The members' batches [M, …] with their Cloze rows, and filler where others have more of these."""
        own = [
            self.step.with_cloze(batch.take(torch.tensor(at)), generator)
            for at, generator in enumerate(streams.samples)
        ]
        streams.rows = [len(rows) for rows in own]
        return side_by_side(own, self.learner.student.n_items)

    def _spare_padding(self) -> None:
        # Under vmap an embedding spares the padding of the first member only.
        gradient = self.stack.parameters["student.items.weight"].grad
        if gradient is not None:
            gradient[:, self.learner.student.n_items] = 0

    def _note(self, losses: Tensor, number: int, batch: Rows) -> None:
        """Mark members whose loss is not finite; what becomes of their slices reaches no other member."""
        if losses.isfinite().all():
            return
        for at in (~losses.isfinite()).nonzero()[:, 0].tolist():
            member = self.members[at]
            place = f"epoch {member.progress.epoch}, step {number}, member {member.place}"
            member.error = member.error or not_finite(losses[at], place, batch.row_id[at])


def _with(config: TrainConfig, weights: dict[str, Tensor]) -> TrainConfig:
    """``config`` with numbers under ``vmap`` in the fields that they are named after."""
    sections = {}
    for section in ("distillation", "objective"):
        names = {name.split(".")[1]: value for name, value in weights.items() if name.startswith(f"{section}.")}
        sections[section] = getattr(config, section).model_copy(update=names)
    return config.model_copy(update=sections)
