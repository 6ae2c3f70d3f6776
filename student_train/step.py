"""The loss of one batch: a plain function of tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from student_train.config import TrainConfig
from student_train.distillation.ranking import ranking_distillation
from student_train.objectives import OBJECTIVES, dro
from student_train.rows import Rows


@dataclass
class Losses:
    """The parts of a batch's loss, each a scalar."""

    student: Tensor
    dro: Tensor
    ranking: Tensor

    @property
    def total(self) -> Tensor:
        """L = L_student + α L_dro + λ L_d, weights applied."""
        return self.student + self.dro + self.ranking


def batch_losses(
    scores_BN: Tensor, batch: Rows, propensity_N: Tensor, config: TrainConfig, generator: torch.Generator
) -> Losses:
    """The weighted parts of the loss of one batch.

    Args:
        scores_BN: the student's logits.
        batch: rows of the batch, with teacher lists if the student is distilled.
        propensity_N: of the DRO term.
        config: objective and distillation weights.
        generator: of the sampled negatives.
    """
    objective = OBJECTIVES[config.objective.loss]
    negatives_BM = sample_negatives(batch.target, scores_BN.shape[1], config.objective.negatives, generator)
    zero = scores_BN.new_zeros(())
    robust, ranking = zero, zero
    if config.student == "dros":
        term = dro(scores_BN, batch.target, propensity_N, config.objective.dro_beta)
        robust = config.objective.dro_weight * term
    if batch.teacher_items is not None and batch.confidence is not None and config.distillation.lam:
        term = ranking_distillation(
            scores_BN, batch.teacher_items, batch.confidence, config.distillation, objective.log_likelihood
        )
        ranking = config.distillation.lam * term
    return Losses(objective.loss(scores_BN, batch.target, negatives_BM), robust, ranking)


def sample_negatives(target_B: Tensor, n_items: int, count: int, generator: torch.Generator) -> Tensor:
    """Items [B, count] drawn uniformly from the catalogue without the row's target."""
    shape = (len(target_B), count)
    drawn_BM = torch.randint(n_items - 1, shape, generator=generator).to(target_B.device)
    return drawn_BM + (drawn_BM >= target_B[:, None])
