"""Points on a grid of small integers: squared distances that are cheap, exact integers and provably near the true ones.

Points are centred, turned by a random rotation (so that no coordinate stands out) and rounded to ``int8`` at a random
offset. For any two points, the difference of their grid positions is then, coordinate by coordinate and independently,
one of the two whole numbers around the true difference, and right on average; clamping to the grid's range only brings
points nearer. Hoeffding's inequality so bounds how far the grid can overstate a distance, whatever the data are.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# The bound is exceeded for one pair in 10^18. Only the K nearest of a query matter: a billion queries with K = 20 are
# all right with a probability above 1 - 10^-7.
DEVIATION = math.sqrt(math.log(1e18) / 2)
REACH = 4.0  # the grid's range, in root mean squares of a coordinate: finer steps against more that is clamped
ROUNDING = 1e-2  # steps that float64's rounding may add to a distance: enough for points 10^10 steps away
OUT = torch.iinfo(torch.int32).max  # stands for items left out


@dataclass(frozen=True)
class Placed:
    """Points on the grid: positions [B, E'] int8 (E' is E filled up to a multiple of 8), their squares [B] int32."""

    points: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, count: int, width: int, device: torch.device) -> "Placed":
        """Room for ``count`` points [E]."""
        points = torch.empty(count, -(-width // 8) * 8, dtype=torch.int8, device=device)
        return cls(points, torch.empty(count, dtype=torch.int32, device=device))

    def __setitem__(self, rows: slice, placed: "Placed") -> None:
        self.points[rows], self.squares[rows] = placed.points, placed.squares

    def __getitem__(self, rows: slice | Tensor) -> "Placed":
        return Placed(self.points[rows], self.squares[rows])


@dataclass(frozen=True)
class Grid:
    """A grid over points [E]; tensors are float64 and live on one device."""

    centre_E: Tensor
    offset_E: Tensor
    left: Tensor  # the rotation turns a point, seen as a matrix, by one orthogonal matrix from each side
    right: Tensor
    step: float
    positions: int  # from -positions to positions

    @classmethod
    def fit(cls, sample_SE: Tensor) -> "Grid":
        """A grid for points that are distributed like these (float64)."""
        width = sample_SE.shape[1]
        rows = max(divisor for divisor in range(1, math.isqrt(width) + 1) if width % divisor == 0)
        generator = torch.Generator().manual_seed(0)
        left, right = (_rotation(size, generator) for size in (rows, width // rows))
        offset_E = torch.rand(width, generator=generator, dtype=torch.float64) - 0.5
        centre_E = sample_SE.mean(0)
        squares_S = (sample_SE - centre_E).square().sum(1)
        # The median: a few far points must not coarsen the grid for all.
        spread = math.sqrt(squares_S.median().item() / width) or math.sqrt(squares_S.mean().item() / width) or 1.0
        positions = min(127, math.isqrt((2**31 - 1) // width) // 2)  # squared distances must fit int32
        step = REACH * spread / positions
        device = sample_SE.device
        return cls(centre_E, offset_E.to(device), left.to(device), right.to(device), step, positions)

    def place(self, points_BE: Tensor) -> Placed:
        """Grid positions of float64 points."""
        rows, columns = len(self.left), len(self.right)
        scaled_BE = (points_BE - self.centre_E).mul_(1 / self.step)
        turned_BE = (self.left @ scaled_BE.view(-1, rows, columns) @ self.right).view(scaled_BE.shape)
        limit = self.positions - 0.5
        placed_BE = turned_BE.clamp_(-limit, limit).add_(self.offset_E).round_()
        squares_B = torch.linalg.vecdot(placed_BE, placed_BE).to(torch.int32)
        return Placed(functional.pad(placed_BE.to(torch.int8), (0, -placed_BE.shape[1] % 8)), squares_B)

    def reach(self, distances_B: Tensor) -> Tensor:
        """Squared grid distances [B] float64 that no point within ``distances_B`` of the query exceeds.

        A coordinate that differs by x steps differs by x on average on the grid, by ``variance ≤ 1/4`` more in the
        square, and the square takes two values at most ``2|x| + 1`` apart.
        """
        steps_B = distances_B / self.step + ROUNDING
        root = math.sqrt(len(self.offset_E))
        return steps_B.square() + root**2 / 4 + DEVIATION * (2 * steps_B + root)


def near(queries: Placed, items: Placed) -> Tensor:
    """Squared grid distances [B, M] int32, less the square of the query itself: exact, so the same in any block."""
    dots_BM = _dots(queries.points, items.points)
    return torch.sub(items.squares, dots_BM, alpha=2, out=dots_BM)


def _dots(queries_BE: Tensor, items_ME: Tensor) -> Tensor:
    if not queries_BE.is_cuda:
        return torch._int_mm(queries_BE, items_ME.T)
    # CUDA multiplies 17 rows and more by multiples of 8.
    rows, items = len(queries_BE), len(items_ME)
    queries_BE = functional.pad(queries_BE, (0, 0, 0, max(0, 32 - rows)))
    items_ME = functional.pad(items_ME, (0, 0, 0, -items % 8))
    return torch._int_mm(queries_BE, items_ME.T)[:rows, :items]


def _rotation(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
