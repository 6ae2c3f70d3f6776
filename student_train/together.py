"""Students of one shape that train together: one batched step advances them all.

The loss is that of :class:`Step`, batched over members with ``torch.func.vmap``: each has its own weights, batches,
random draws, loss weights and trust, and nothing of one reaches another, so that each ends where
:func:`student_train.loop.fit` ends with its config, to float tolerance. On a GPU dropout draws other masks than it does
there.

Members share one process and one device. DeepSpeed has no part in it: there is nothing to shard between ranks, and its
engine holds one model, one optimizer and one gradient norm, where each member needs its own.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional

from cluster.errors import UserError
from student_train.alike import WEIGHTS, check_alike, value_at
from student_train.config import TrainConfig
from student_train.evaluation import evaluate, metric_means
from student_train.learner import Learned, fold
from student_train.loop import (
    Materials,
    Progress,
    build,
    epoch_seed,
    exhausted,
    not_finite,
    plain_student,
    trust,
    untaught,
)
from student_train.memberwise import Members, training_together
from student_train.rows import Rows, Taught
from student_train.stack import Stack
from student_train.step import Step
from student_train.student import Student

GoesOn = Callable[[int, Progress], bool]
"""Called after every evaluation of a member with its place and progress; False ends its training."""


@dataclass
class Member:
    """One of the students."""

    place: int
    config: TrainConfig
    progress: Progress = field(default_factory=Progress)
    trusted: float = 1.0
    error: UserError | None = None
    stopped: bool = False

    @property
    def finished(self) -> bool:
        """Whether it leaves the batch."""
        ended = self.progress.epoch >= self.config.epochs or exhausted(self.progress, self.config)
        return self.stopped or self.error is not None or ended


def fit_together(
    configs: Sequence[TrainConfig],
    materials: Materials,
    on_evaluation: GoesOn,
    device: torch.device | None = None,
    at_once: int | None = None,
) -> list[tuple[Student, Progress] | UserError]:
    """Train a student per config; all advance epoch by epoch, and those that end leave the others as they are.

    Args:
        configs: what to train; :func:`student_train.alike.groups` says which can train together.
        materials: all rows (rank 0 of 1), and what they are scored with.
        on_evaluation: reports progress and may end single members.
        device: the first GPU by default, or the CPU without one.
        at_once: members in one batched step; by default all on a GPU, and on a CPU as many as its caches serve.

    Returns:
        Per config what :func:`student_train.loop.fit` returns, or the error that it raises; a member's ``seconds`` are
        its share of those that the batch took.

    Raises:
        ConfigError: members do not fit together.
    """
    check_alike(configs)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    members = [Member(place, config) for place, config in enumerate(configs)]
    size = at_once or _at_once(configs[0], len(materials.train_count), device)
    batches = [Together(members[at : at + size], materials, device) for at in range(0, len(members), size)]
    while batches:
        for batch in batches:
            batch.epoch(on_evaluation)
        batches = [batch for batch in batches if batch.members]
    return [
        member.error
        or (plain_student(member.config, materials, member.progress.best_state).to(device), member.progress)
        for member in members
    ]


class Together:
    """The members of one batched step."""

    def __init__(self, members: Sequence[Member], materials: Materials, device: torch.device) -> None:
        self.members = list(members)
        self.materials = materials
        self.device = device
        self.rows = materials.train.to(device)
        config = members[0].config
        learners = [build(member.config, materials) for member in members]
        self.stack = Stack(learners, [member.config for member in members], device)
        self.learner = learners[0].to(device)
        self.step = Step(config, materials.train_count, device)
        judged = materials.teacher_ndcg and any(member.config.distillation.trust for member in members)
        self.untaught = metric_means(untaught(config, materials)) if judged else {}

    def epoch(self, on_evaluation: GoesOn) -> None:
        """One pass over the rows, evaluations, and the departure of those that are finished."""
        started = time.perf_counter()
        for member in self.members:
            member.progress.epoch += 1
            best = member.progress.best
            member.trusted = trust(member.config, self.materials.teacher_ndcg, self.untaught, best)
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
        steps = -(-self.materials.total_rows // config.batch)
        streams = self._streams()
        order = torch.stack([self.rows.order(config.batch, steps, own) for own in streams.samples]).to(self.device)
        weights = self._weights()
        self.learner.train()
        total = torch.zeros(len(self.members), device=self.device)
        for number in range(steps):
            batch = self.rows.take(order[:, number])
            both = self._both(batch, streams)
            with training_together(streams):
                losses = vmap(self._loss)(self.stack.parameters, weights, _tensors(batch), _tensors(both))
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

        def score(history_BL: Tensor, items_BM: Tensor | None) -> Learned:
            learned: Learned = functional_call(self.learner, parameters, (history_BL, items_BM))
            return learned

        self.learner.set_embedding_weight(weights["joined"])
        step = self.step.weighed(_with(self.members[0].config, weights), weights["trusted"])
        # The streams of the members are drawn from instead of this one.
        return step.losses(score, _rows(batch), _rows(both), torch.default_generator).total

    def _evaluate(self, at: int, loss: float, on_evaluation: GoesOn) -> None:
        member, started = self.members[at], time.perf_counter()
        self.learner.set_embedding_weight(member.config.distillation.ed_weight * member.trusted)
        state = fold(self.stack.state(at), self.learner)
        student = plain_student(member.config, self.materials, state).to(self.device)
        try:
            sums = evaluate(student, self.materials.validation, self.device, member.config.filter_history)
        except UserError as error:
            member.error = error
            return
        member.progress.seconds += time.perf_counter() - started
        member.progress.record(metric_means(sums) | {"loss": loss}, state)
        member.stopped = not on_evaluation(member.place, member.progress)

    def _streams(self) -> Members:
        seeds = [epoch_seed(member.config, member.progress.epoch) for member in self.members]
        return Members(
            samples=[torch.Generator().manual_seed(seed) for seed in seeds],
            masks=[torch.Generator(self.device).manual_seed(seed) for seed in seeds],
            dropout=[member.config.shape.dropout for member in self.members],
            rows=[],
        )

    def _weights(self) -> dict[str, Tensor]:
        """Numbers per member [M]: trust, weight of the projected embeddings, and the loss weights that differ."""
        configs = [member.config for member in self.members]
        values = {name: [value_at(config, name) for config in configs] for name in WEIGHTS}
        differing = {name: found for name, found in values.items() if len(set(found)) > 1}
        trusted = [member.trusted for member in self.members]
        joined = [config.distillation.ed_weight * share for config, share in zip(configs, trusted, strict=True)]
        numbers = differing | {"trusted": trusted, "joined": joined}
        return {name: torch.tensor(found, dtype=torch.float32, device=self.device) for name, found in numbers.items()}

    def _both(self, batch: Rows, streams: Members) -> Rows:
        """The members' batches [M, …] with their Cloze rows, and filler where others have more of these."""
        own = [
            self.step.with_cloze(batch.take(torch.tensor(at)), generator)
            for at, generator in enumerate(streams.samples)
        ]
        streams.rows = [len(rows) for rows in own]
        return stacked(own, self.learner.student.n_items)

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


def stacked(members: Sequence[Rows], padding: int) -> Rows:
    """Rows [M, S, …] without teacher, filled up to the longest member's S with empty ones of id −1."""
    longest = max(map(len, members))

    def fill(values: Tensor, filler: int) -> Tensor:
        return functional.pad(values, (0, 0) * (values.dim() - 1) + (0, longest - len(values)), value=filler)

    return Rows(
        torch.stack([fill(rows.row_id, -1) for rows in members]),
        torch.stack([fill(rows.history, padding) for rows in members]),
        torch.stack([fill(rows.target, 0) for rows in members]),
    )


def _tensors(rows: Rows) -> list[Tensor]:
    taught = rows.teacher
    teacher = [taught.items, taught.logits, taught.distance, taught.confidence] if taught else []
    return [rows.row_id, rows.history, rows.target, *teacher]


def _rows(tensors: Sequence[Tensor]) -> Rows:
    row_id, history, target, *teacher = tensors
    return Rows(row_id, history, target, Taught(*teacher) if teacher else None)


def _with(config: TrainConfig, weights: dict[str, Tensor]) -> TrainConfig:
    """``config`` with numbers under ``vmap`` in the fields that they are named after."""
    sections = {}
    for section in ("distillation", "objective"):
        names = {name.split(".")[1]: value for name, value in weights.items() if name.startswith(f"{section}.")}
        sections[section] = getattr(config, section).model_copy(update=names)
    return config.model_copy(update=sections)


def _at_once(config: TrainConfig, n_items: int, device: torch.device) -> int:
    return 64 if device.type == "cuda" else 4
