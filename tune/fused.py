"""Trials that share a device: the points of a bracket trained as one stacked model, and halved together.

All members see the same batches, negatives and Cloze rows; weights, dropout and settings are their own. So a member's
results are those of a separate training in distribution, not draw by draw.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from ray.tune.result import SHOULD_CHECKPOINT
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from cluster.errors import TrainingError, UserError
from student_train import loop
from student_train.batch import Batch
from student_train.config import TrainConfig
from student_train.distilled_student import fold
from student_train.evaluation import Metrics, evaluate, metric_means
from student_train.training_loss import TrainingLoss
from tune.journal import Record
from tune.points import IN_LOSS
from tune.shared_data import shared_with
from tune.trial import Plan, Trial, measured, trained_config

BETAS, EPSILON = (0.9, 0.999), 1e-8
FILE = "bracket.pt"
Stack = dict[str, Tensor]
"""Values of models by name, stacked along the first dimension."""


@dataclass
class Model:
    """One seed of one member."""

    number: int
    config: TrainConfig
    state: loop.TrainerState = field(default_factory=loop.TrainerState)
    failed: str = ""

    @property
    def ended(self) -> bool:
        """Whether it has nothing left to train."""
        return self.state.epoch >= self.config.epochs or loop.out_of_patience(self.state, self.config)


class Bracket:
    """Members with all their seeds, trained by ``torch.func``; at every rung the best of them continue."""

    def __init__(self, plan: Plan, members: Sequence[dict[str, Any]], checkpoint: Path | None = None) -> None:
        self.plan, self.points = plan, {member["number"]: member["point"] for member in members}
        configs = {number: trained_config(plan, point) for number, point in self.points.items()}
        self.models = [
            Model(number, config.model_copy(update={"seed": config.seed + seed}))
            for number, config in configs.items()
            for seed in range(plan.seeds)
        ]
        """Of all members that are running."""
        self.stacked = list(self.models)
        """Those that are training: the stacks hold them in this order."""
        self.config = self.models[0].config
        self.data, self.steps = shared_with(self.config, plan.shared), 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.stacks: list[Stack] = []
        """Trained and frozen weights, first and second moments, averaged weights."""
        self._build()
        self._measures, self._kept = measured(self.config, plan.objectives), time.monotonic()
        if checkpoint:
            self._load(checkpoint)

    def step(self) -> dict[str, Any]:
        """Train until the next evaluation; see :meth:`tune.trial.Trial.step`."""
        started, before = time.perf_counter(), self.stacked[0].state.epoch
        loss_M = self._epoch()
        while (epoch := self.stacked[0].state.epoch) % self.config.evaluate_every and epoch < self.config.epochs:
            loss_M = self._epoch()
        for place, (model, loss) in enumerate(zip(self.stacked, loss_M.tolist(), strict=True)):
            try:
                model.state.record(self._evaluated(place) | {"loss": loss}, {})
            except TrainingError as error:
                model.failed = f"loss is {loss} in epoch {epoch}: {error}"
        for model in self.stacked:
            model.state.seconds += (time.perf_counter() - started) / len(self.stacked)
        records = self._halved(any(before < rung <= epoch for rung in self.plan.decisions))
        self.points = {record.number: record.point for record in records if record.state == "running"}
        self.models = [model for model in self.models if model.number in self.points]
        self._keep([at for at, m in enumerate(self.stacked) if m.number in self.points and not m.ended])
        return {
            "epoch": epoch,
            "records": [record.model_dump_json() for record in records],
            "complete": not self.points,
            SHOULD_CHECKPOINT: bool(self.points) and time.monotonic() - self._kept >= self.plan.checkpoint_seconds,
        }

    def save(self, directory: Path) -> None:
        """Write a checkpoint."""
        states = {(model.number, model.config.seed): asdict(model.state) for model in self.models}
        names = [(model.number, model.config.seed) for model in self.stacked]
        torch.save((states, names, self.stacks, self.steps), directory / FILE)
        self._kept = time.monotonic()

    def _load(self, directory: Path) -> None:
        states, names, self.stacks, self.steps = torch.load(directory / FILE, self.device)
        models = {(model.number, model.config.seed): model for model in self.models}
        for name, model in models.items():
            model.state = loop.TrainerState(**states[name])
        # Members that ended after it was written are in it still.
        self.stacked = [models.get(name, Model(-1, self.config)) for name in names]
        self._keep([at for at, model in enumerate(self.stacked) if model.number >= 0])

    def _build(self) -> None:
        students = [loop.build(model.config, self.data) for model in self.models]
        self._student = students[0].to(self.device).train()
        named = [dict(student.named_parameters()) for student in students]
        stacks: tuple[Stack, Stack] = ({}, {})  # trained and frozen
        for name, one in named[0].items():
            stacks[not one.requires_grad][name] = torch.stack([own[name].detach() for own in named]).to(self.device)
        moments = [{name: torch.zeros_like(value) for name, value in stacks[0].items()} for _ in BETAS]
        self.stacks = [*stacks, *moments, {name: value.clone() for name, value in stacks[0].items()}]
        self._loss = _Weighed(self.config, self.data.train_count, self.device)

    def _keep(self, places: list[int]) -> None:
        self.stacks = [{name: value[places] for name, value in stack.items()} for stack in self.stacks]
        self.stacked = [self.stacked[place] for place in places]

    def _halved(self, now: bool) -> list[Record]:
        """The members as they stand, after successive halving if it is time for it."""
        records = [self._record(number) for number in self.points]
        running = [record for record in records if record.state == "running"]
        running.sort(key=lambda record: record.best(self.plan.objectives[0]), reverse=True)
        weak = {record.number for record in running[max(1, int(len(running) / self.plan.reduction)) :] if now}
        return [one.model_copy(update={"state": "stopped early"}) if one.number in weak else one for one in records]

    def _record(self, number: int) -> Record:
        models = [model for model in self.models if model.number == number]
        failed = next((model.failed for model in models if model.failed), "")
        return Record(
            number=number,
            point=self.points[number],
            state="failed" if failed else "complete" if all(model.ended for model in models) else "running",
            reason=failed,
            histories={model.config.seed: model.state.history for model in models},
            measures=self._measures,
            seconds=sum(model.state.seconds for model in models),
        )

    def _epoch(self) -> Tensor:
        """One more pass over the rows; the mean loss of every model [M]."""
        for model in self.stacked:
            model.state.epoch += 1
        own = {name: self._of([getattr(m.config.distillation, name) for m in self.stacked]) for name in IN_LOSS}
        own["teacher_weight"] = self._of([self._teacher_weight(model) for model in self.stacked])
        for name in ("learning_rate", "weight_decay"):
            own[name] = self._of([getattr(model.config, name) for model in self.stacked])
        seed = loop.epoch_seed(self.config, self.stacked[0].state.epoch)
        steps, total_M = -(-self.data.total_rows // self.config.batch_size), self._of([0.0] * len(self.stacked))
        batches, drawing = loop.drawn_batches(self._loss, self.data.train, steps, seed, self.device)
        for batch in batches:
            total_M += self._step(batch, own, drawing)
        return total_M / steps

    def _step(self, batch: Batch, own: Stack, drawing: torch.Generator) -> Tensor:
        def loss(weights: Stack, frozen: Stack, own: Stack) -> Tensor:
            self._loss.weigh(self.config, own)
            self._student.set_embedding_weight(own["ed_weight"] * own["teacher_weight"])  # type: ignore[arg-type]
            parameters = weights | frozen
            return self._loss(lambda *of: functional_call(self._student, parameters, of), batch, drawing).total

        try:
            gradients, loss_M = vmap(grad_and_value(loss), randomness="different")(*self.stacks[:2], own)  # type: ignore[call-arg]
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            what = f"{self.config.model.name} with {self.config.loss.name} and {self.config.distillation.strategy}"
            raise UserError(f"{what} cannot be fused ({str(error)[:60]} …): set `fused` to 1") from error
        self._update(gradients, own)
        return loss_M.detach()

    def _update(self, gradients: Stack, own: Stack) -> None:
        """AdamW of every model with its own rate and decay, after clipping its own gradient; then the average."""
        weights, _, first, second, average = self.stacks
        self.steps += 1
        gradients["student.items.weight"][:, -1] = 0  # vmap forgets which row is padding
        norm_M = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0).sqrt()
        clip_M = ((self.config.deepspeed.gradient_clip or torch.inf) / (norm_M + 1e-6)).clamp(max=1)
        correct = [1 - beta**self.steps for beta in BETAS]
        share = 1 / (1 + self.config.weight_average * self.steps) if self.config.weight_average else 1.0
        for name, gradient in gradients.items():
            shape = (-1, *[1] * (gradient.dim() - 1))
            clip, rate, decay = (v.view(shape) for v in (clip_M, own["learning_rate"], own["weight_decay"]))
            first[name].lerp_(gradient * clip, 1 - BETAS[0])
            second[name].lerp_((gradient * clip).square(), 1 - BETAS[1])
            moved = rate * (first[name] / correct[0]) / ((second[name] / correct[1]).sqrt() + EPSILON)
            weights[name].mul_(1 - rate * decay).sub_(moved)
            average[name].lerp_(weights[name], share)

    @torch.no_grad()
    def _evaluated(self, place: int) -> dict[str, float]:
        """Metrics of a folded model."""
        config = self.stacked[place].config
        weights = {name: value[place].cpu() for name, value in (self.stacks[-1] | self.stacks[1]).items()}
        self._student.set_embedding_weight(config.distillation.ed_weight * self._teacher_weight(self.stacked[place]))
        plain = loop.plain_student(config, self.data, fold(weights, self._student)).to(self.device)
        counts_R = evaluate(plain, self.data.validation, self.device, config.filter_history)
        return metric_means(counts_R, Metrics(self.config.metrics))

    def _teacher_weight(self, model: Model) -> float:
        return loop.teacher_weight(model.config, self.data.teacher_ndcg, self.data.yardstick, model.state.best)

    def _of(self, values: list[Any]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)


class _Weighed(TrainingLoss):
    """A loss whose weights are a model's own."""

    def weigh(self, config: TrainConfig, own: Stack) -> None:
        """Take one model's weights."""
        distillation = config.distillation.model_copy(update={name: own[name] for name in IN_LOSS})
        self.config = config.model_copy(update={"distillation": distillation})
        self.teacher_weight = own["teacher_weight"]  # type: ignore[assignment]


class FusedTrial(Trial):
    """A bracket in the process of a trial."""

    def _begin(self, checkpoint: Path | None) -> Any:  # noqa: ANN401
        return Bracket(self.plan, self.config["members"], checkpoint)
