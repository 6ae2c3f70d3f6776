"""What a student's own loss must hold."""

import torch
from torch import Tensor

from conformance.promise import promise
from student_train.config import LossConfig
from student_train.losses import StudentLoss, student_loss
from student_train.losses.base import Items

B, N, NEGATIVES = 6, 20, 3
POPULARITY_N = torch.full((N,), 1 / N)


def check_loss(name: str) -> None:
    """Put a loss through the promises that the training step relies on.

    Args:
        name: as in ``--loss``: a built-in name or a dotted path.

    Raises:
        ConformanceError: names the promise that is broken.
        ConfigError: the dotted path leads to nothing.
    """
    loss = student_loss(LossConfig(name=name, negatives=NEGATIVES))
    promise(isinstance(loss, StudentLoss), name, "is a subclass of student_train.losses.StudentLoss")
    generator = torch.Generator().manual_seed(0)
    target_B = torch.randint(N, (B,), generator=generator)
    history_BL = torch.randint(N + 1, (B, 4), generator=generator)
    _draws(loss, name, target_B, history_BL)
    _values(loss, name, target_B, history_BL, torch.randn(B, N, generator=generator))


def _draws(loss: StudentLoss, name: str, target_B: Tensor, history_BL: Tensor) -> None:
    drawn_BM, again_BM = (
        loss.draw(target_B, history_BL, POPULARITY_N, torch.Generator().manual_seed(1)) for _ in range(2)
    )
    promise(drawn_BM.shape == (B, NEGATIVES), name, f"draws `negatives` items per row, not {tuple(drawn_BM.shape)}")
    promise(torch.equal(drawn_BM, again_BM), name, "draws from the generator that it is given, and nothing else")
    promise(bool(((drawn_BM >= 0) & (drawn_BM < N)).all()), name, "draws items of the catalogue")


def _values(loss: StudentLoss, name: str, target_B: Tensor, history_BL: Tensor, scores_BN: Tensor) -> None:
    negative_BM = loss.draw(target_B, history_BL, POPULARITY_N, torch.Generator().manual_seed(1))

    def values(scores_BN: Tensor, rows: slice = slice(None)) -> Tensor:
        items = Items(target_B[rows], negative_BM[rows], POPULARITY_N)
        asked = scores_BN if loss.full else scores_BN.gather(1, negative_BM[rows])
        return loss.loss(scores_BN.gather(1, target_B[rows, None]).squeeze(1), asked, items)

    scores_BN = scores_BN.requires_grad_()
    loss_B = values(scores_BN)
    promise(loss_B.shape == (B,), name, f"gives a value per row [B], not {tuple(loss_B.shape)}")
    promise(bool(loss_B.isfinite().all()), name, "is finite for finite logits")
    alone_B = torch.cat([values(scores_BN[at : at + 1], slice(at, at + 1)) for at in range(B)])
    promise(torch.allclose(loss_B, alone_B, atol=1e-5), name, "does not let rows of a batch see each other")
    (slope_BN,) = torch.autograd.grad(loss_B.sum(), scores_BN)
    promise(bool((slope_BN.gather(1, target_B[:, None]) < 0).all()), name, "falls when the target's logit rises")
    likelihood_BK = loss.log_likelihood(scores_BN, negative_BM)
    promise(likelihood_BK.shape == negative_BM.shape, name, "gives log-likelihoods [B, K] of the items asked for")
    promise(bool((likelihood_BK <= 0).all()), name, "gives log-likelihoods of at most 0")
    promise(0 < loss.distillation_scale <= 1, name, "has a distillation_scale in (0, 1]")
