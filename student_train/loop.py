"""The training loop of one worker: epochs, evaluation of the folded student, early stopping, checkpoints."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cluster.engine import Engine, sum_over_workers
from cluster.errors import TrainingError
from data_prep.metrics import METRICS
from student_train.batch import Batch, made_ahead
from student_train.config import TrainConfig
from student_train.distilled_student import DistilledStudent, fold
from student_train.epoch_loss import EpochLoss
from student_train.evaluation import Metrics, evaluate, metric_means
from student_train.models.student import Student
from student_train.rows import Rows
from student_train.training_loss import TrainingLoss

SELECTION_METRIC = "ndcg@20"


@dataclass
class TrainingData:
    """What a worker trains on."""

    train: Rows
    validation: Rows
    train_count: Tensor
    """Targets per item in the train split [N]."""
    teacher_embeddings: Tensor | None
    """Teacher embeddings [N, E]; none for a plain student."""
    teacher_ndcg: dict[str, float] = field(default_factory=dict)
    """The teacher's own ``ndcg@K`` on validation rows; none where these are not labelled."""
    yardstick: dict[str, float] = field(default_factory=dict)
    """Validation metrics of item transitions, from the data set's manifest."""
    rank: int = 0
    world_size: int = 1
    total_rows: int = 0
    """Train rows over all workers."""


@dataclass
class TrainerState:
    """Where a training stands; kept in checkpoints."""

    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def record(self, metrics: dict[str, float], weights: dict[str, Tensor]) -> None:
        """Note an evaluation; keep the weights if it is the best so far."""
        self.history.append({"epoch": self.epoch, **metrics})
        if metrics[SELECTION_METRIC] > self.best.get(SELECTION_METRIC, -1.0):
            self.best, self.best_weights, self.best_epoch = metrics, weights, self.epoch


OnEvaluation = Callable[[TrainerState, Callable[[Path], None]], bool]
"""Called after every evaluation with the state and a function that writes a checkpoint into a directory; False ends
the training, and all workers have to agree on it."""


class Trainer:
    """One training, evaluation by evaluation; on several workers every call is collective."""

    def __init__(self, config: TrainConfig, data: TrainingData, resume: Path | None = None) -> None:
        """Build the model and its engine.

        Args:
            config: what to train and how.
            data: this worker's rows, and what they are scored with.
            resume: checkpoint directory to resume from.

        Raises:
            TrainingError: an epoch has not enough batches for one update.
        """
        self.config, self.data = config, data
        self._steps = steps_per_epoch(config, data.total_rows, data.world_size)
        self.model = build(config, data)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, config.learning_rate, weight_decay=config.weight_decay)
        self._engine = Engine(self.model, optimizer, config.deepspeed, config.batch_size, config.weight_average)
        self.state = TrainerState(**self._engine.load(resume)) if resume else TrainerState()
        # A search may resume from a checkpoint with others than stand in it.
        self._engine.set_learning_rate(config.learning_rate)
        self._engine.set_weight_decay(config.weight_decay)
        self._loss = TrainingLoss(config, data.train_count, self._engine.device)

    @property
    def ended(self) -> bool:
        """Whether epochs or patience ran out."""
        return self.state.epoch >= self.config.epochs or out_of_patience(self.state, self.config)

    def advance(self) -> None:
        """Train until the next evaluation, and record it in ``state``.

        Raises:
            TrainingError: loss or scores are not finite.
        """
        config, state, started = self.config, self.state, time.perf_counter()
        loss = self._epoch()
        while state.epoch % config.evaluate_every and state.epoch < config.epochs:
            loss = self._epoch()
        weights = fold(self._engine.state_dict(), self.model)
        plain = plain_student(config, self.data, weights)
        metrics = _validate(self._engine, plain, self.data.validation, config)
        state.seconds += time.perf_counter() - started
        state.record(metrics | {"loss": loss}, weights)

    def save(self, directory: Path) -> None:
        """Write a checkpoint into a directory."""
        self._engine.save(directory, asdict(self.state))

    def student(self) -> Student:
        """The best student by validation NDCG@20, folded."""
        return plain_student(self.config, self.data, self.state.best_weights).to(self._engine.device)

    def _epoch(self) -> float:
        """One more pass over the rows; returns its mean loss."""
        config, data, state = self.config, self.data, self.state
        state.epoch += 1
        self._loss.teacher_weight = teacher_weight(config, data.teacher_ndcg, data.yardstick, state.best)
        self.model.set_embedding_weight(config.distillation.ed_weight * self._loss.teacher_weight)
        return _epoch(self._engine, self._loss, data, self._steps, state.epoch)


def fit(
    config: TrainConfig, data: TrainingData, on_evaluation: OnEvaluation, resume: Path | None = None
) -> tuple[Student, TrainerState]:
    """Train until the patience or the epochs run out or it is asked to end; a collective call of all workers.

    Args:
        config: what to train and how.
        data: this worker's rows, and what they are scored with.
        on_evaluation: reports state; may end the training.
        resume: checkpoint directory to resume from.

    Returns:
        The best student by validation NDCG@20, folded, and the state.

    Raises:
        TrainingError: loss or scores are not finite.
    """
    trainer = Trainer(config, data, resume)
    more = True
    while more and not trainer.ended:
        trainer.advance()
        more = on_evaluation(trainer.state, trainer.save)
    return trainer.student(), trainer.state


def steps_per_epoch(config: TrainConfig, rows: int, world_size: int) -> int:
    """Batches per worker and epoch: every row once, and a few again so that the epoch ends with an update.

    Raises:
        TrainingError: an epoch has not enough batches for one update.
    """
    steps, accumulated = -(-rows // (world_size * config.batch_size)), config.deepspeed.gradient_accumulation
    if accumulated > steps:
        raise TrainingError(
            f"`deepspeed.gradient_accumulation` = {accumulated}, but an epoch has {steps} batches of "
            f"{config.batch_size} rows on each of {world_size} workers: lower it or `batch_size`"
        )
    return -(-steps // accumulated) * accumulated


def teacher_weight(
    config: TrainConfig, teacher_ndcg: Mapping[str, float], yardstick: Mapping[str, float], best: Mapping[str, float]
) -> float:
    """How far to follow the teacher in the next epoch, in [0, 1].

    A teacher that ranks far worse than what is had without it has little to teach; one that reaches the asked share of
    it is followed in full. What is had without it is the student's best evaluation so far or, where that is
    less, what transitions between items reach. All are judged by the NDCG with the largest cutoff that the
    teacher's lists are long enough for; without any, it is followed in full.

    Args:
        config: names the share.
        teacher_ndcg: the teacher's own metrics; all three by name.
        yardstick: those of item transitions.
        best: the student's best so far.
    """
    asked = config.distillation.teacher_threshold
    shared = [name for name in METRICS if name.startswith("ndcg@") and name in teacher_ndcg]
    if not shared or not asked:
        return 1.0
    without = max(yardstick.get(shared[-1], 0.0), best.get(shared[-1], 0.0), 1e-12)
    return min(1.0, teacher_ndcg[shared[-1]] / without / asked) ** 2


def build(config: TrainConfig, data: TrainingData) -> DistilledStudent:
    """The model to train; the same weights on every worker."""
    torch.manual_seed(config.seed)
    n_items = len(data.train_count)
    return DistilledStudent(config.model, n_items, data.teacher_embeddings, config.distillation)


def epoch_seed(config: TrainConfig, epoch: int, rank: int = 0) -> int:
    """Seed of all that a worker draws in an epoch."""
    return (config.seed * 1009 + epoch) * 1009 + rank


def _epoch(engine: Engine, training_loss: TrainingLoss, data: TrainingData, steps: int, epoch: int) -> float:
    """One pass over this worker's rows; returns the mean loss over all workers."""
    seed = epoch_seed(training_loss.config, epoch, data.rank)
    batches, drawing = drawn_batches(training_loss, data.train, steps, seed, engine.device)
    engine.module.train()
    losses = EpochLoss(epoch, data.rank)
    for batch in batches:
        loss = training_loss(engine, batch, drawing).total
        losses.add(loss, batch)
        engine.backward(loss)
        engine.step()
    return float(engine.mean(torch.tensor(losses.total() / steps, dtype=torch.float64)))


def drawn_batches(
    training_loss: TrainingLoss, rows: Rows, steps: int, seed: int, device: torch.device
) -> tuple[Iterable[Batch], torch.Generator]:
    """The batches of an epoch on ``device``, and the generator there of all else that is drawn in it."""
    # Of dropout too, so that a resumed epoch draws what an undisturbed one does.
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    drawing = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=order)))
    batches = rows.batches(training_loss.config.batch_size, steps, order)
    return made_ahead((training_loss.prepare(batch, order) for batch in batches), device), drawing


def _validate(engine: Engine, plain: Student, rows: Rows, config: TrainConfig) -> dict[str, float]:
    counts_R = evaluate(plain.to(engine.device), rows, engine.device, config.filter_history)
    return metric_means(sum_over_workers(counts_R), Metrics(config.metrics))


def plain_student(config: TrainConfig, data: TrainingData, weights: dict[str, Tensor]) -> Student:
    """The student that holds folded weights."""
    student = Student(config.model, len(data.train_count))
    student.load_state_dict(weights)
    return student


def out_of_patience(state: TrainerState, config: TrainConfig) -> bool:
    """Whether the patience ran out."""
    return state.epoch - state.best_epoch >= config.patience * config.evaluate_every
