"""Students of one shape that train together: one batched step advances them all.

The loss is that of :class:`TrainingLoss`, batched over members with ``torch.func.vmap``: each has its own weights, batches,
random draws, loss weights and trust, and nothing of one reaches another, so that each ends where
:func:`student_train.loop.fit` ends with its config, to float tolerance. On a GPU dropout draws other masks than it does
there.

Members share one process and one device. DeepSpeed has no part in it: there is nothing to shard between ranks, and its
engine holds one model, one optimizer and one gradient norm, where each member needs its own.
"""

from collections.abc import Callable, Mapping, Sequence

import torch

from cluster.errors import TrainingError
from student_train.alike import check_alike
from student_train.cohort import Cohort, GoesOn, Member
from student_train.config import TrainConfig
from student_train.evaluation import metric_means
from student_train.loop import TrainingData, TrainerState, plain_student, yardstick_sums
from student_train.models.student import Student

LOGITS = {"cpu": 2**23, "cuda": 2**29}
"""Logits of a batched step at most; on a CPU steps were slower beyond, where glibc maps every tensor anew (32 MB)."""

OnEpoch = Callable[[Mapping[int, TrainingError]], None]
"""Called with the errors of the members that failed in this epoch, by their places."""


def fit_together(
    configs: Sequence[TrainConfig],
    data: TrainingData,
    on_evaluation: GoesOn,
    device: torch.device | None = None,
    at_once: int | None = None,
    on_epoch: OnEpoch = lambda failed: None,
) -> list[tuple[Student, TrainerState] | TrainingError]:
    """Train a student per config; all advance epoch by epoch, and those that end leave the others as they are.

    Args:
        configs: what to train; :func:`student_train.alike.groups` says which can train together.
        data: all rows (rank 0 of 1), and what they are scored with.
        on_evaluation: reports progress and may end single members.
        device: the first GPU by default, or the CPU without one.
        at_once: members in one batched step; by default as many as ``LOGITS`` allows.
        on_epoch: called after every epoch of all members.

    Returns:
        Per config what :func:`student_train.loop.fit` returns, or the error that it raises; a member's ``seconds`` are
        its share of those that the batch took.

    Raises:
        ConfigError: members do not fit together.
    """
    check_alike(configs)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    members = [Member(place, config) for place, config in enumerate(configs)]
    size = at_once or _at_once(configs[0], len(data.train_count), device)
    judged = data.teacher_ndcg and any(config.distillation.teacher_threshold for config in configs)
    counted = data.yardstick or not judged
    without = data.yardstick if counted else metric_means(yardstick_sums(data, configs[0].filter_history))
    cohorts = [Cohort(members[at : at + size], data, without, device) for at in range(0, len(members), size)]
    while cohorts:
        training = [member for cohort in cohorts for member in cohort.members]
        for cohort in cohorts:
            cohort.epoch(on_evaluation)
        on_epoch({member.place: member.error for member in training if member.error})
        cohorts = [cohort for cohort in cohorts if cohort.members]
    return [
        member.error
        or (plain_student(member.config, data, member.progress.best_state).to(device), member.progress)
        for member in members
    ]


def _at_once(config: TrainConfig, n_items: int, device: torch.device) -> int:
    # Beside its own rows a member may have as many for the Cloze task.
    return max(1, LOGITS[device.type] // (2 * config.batch * n_items))
