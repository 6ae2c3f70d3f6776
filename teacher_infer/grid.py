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

from teacher_infer.blocks import slices

# The bound is exceeded for one pair in 10^18. Only the K nearest of a query matter: a billion queries with K = 20 are
# all right with a probability above 1 - 10^-7.
DEVIATION = math.sqrt(math.log(1e18) / 2)
REACH = 4.0  # the grid's range, in root mean squares of a coordinate: finer steps against more that is clamped
SIDE = 64  # points are filled up with zeros to rows of this length, so that the rotation has two small sides
TILE = 1024  # items multiplied at a time on a CPU, whose cache they and the products fit
OUT = torch.iinfo(torch.int32).max  # stands for items left out


def filled(width: int) -> int:
    """Coordinates of a point on the grid."""
    return -(-width // SIDE) * SIDE


@dataclass(frozen=True)
class Placed:
    """Points on the grid.

    Positions [B, E'] int8 (E' is E filled up to a multiple of ``SIDE``), the squares of these [B] int32, and how far
    from the centre the points are [B] float32, before they are clamped.
    """

    points: Tensor
    squares: Tensor
    lengths: Tensor

    @classmethod
    def empty(cls, count: int, width: int, device: torch.device) -> "Placed":
        """Room for ``count`` points [E]."""
        points = torch.empty(count, filled(width), dtype=torch.int8, device=device)
        return cls(points, *(torch.empty(count, dtype=dtype, device=device) for dtype in (torch.int32, torch.float32)))

    def __setitem__(self, rows: slice, placed: "Placed") -> None:
        self.points[rows], self.squares[rows], self.lengths[rows] = placed.points, placed.squares, placed.lengths

    def __getitem__(self, rows: slice | Tensor) -> "Placed":
        return Placed(self.points[rows], self.squares[rows], self.lengths[rows])


@dataclass(frozen=True)
class Grid:
    """A grid over points [E]; tensors are float32 and live on one device."""

    centre_E: Tensor
    offset: Tensor  # seen as a matrix, like the points
    left: Tensor  # the rotation turns a point, seen as a matrix, by one orthogonal matrix from each side
    right: Tensor
    step: float
    positions: int  # from -positions to positions

    @classmethod
    def fit(cls, sample_SE: Tensor) -> "Grid":
        """A grid for points that are distributed like these."""
        device, width = sample_SE.device, filled(sample_SE.shape[1])
        rows = max(divisor for divisor in range(1, math.isqrt(width) + 1) if width % divisor == 0)
        generator = torch.Generator().manual_seed(0)
        left, right = (_rotation(size, generator).to(device) for size in (rows, width // rows))
        offset = (torch.rand(rows, width // rows, generator=generator) - 0.5).to(device)
        centre_E = sample_SE.mean(0, dtype=torch.float64)
        squares_S = (sample_SE - centre_E).square().sum(1)
        # The median: a few far points must not coarsen the grid for all.
        spread = math.sqrt(squares_S.median().item() / width) or math.sqrt(squares_S.mean().item() / width) or 1.0
        positions = min(127, math.isqrt((2**31 - 1) // width) // 2)  # squared distances must fit int32
        step = REACH * spread / positions
        return cls(centre_E.float(), offset, left, right, step, positions)

    def place(self, points_BE: Tensor) -> Placed:
        """Grid positions of float32 points."""
        centred_BE = points_BE - self.centre_E
        lengths_B = torch.linalg.vector_norm(centred_BE, dim=1)
        filled_BE = functional.pad(centred_BE, (0, self.offset.numel() - centred_BE.shape[1]))
        half_turned = filled_BE.view(-1, *self.offset.shape) @ self.right
        offset, left = (matrix.expand(len(half_turned), -1, -1) for matrix in (self.offset, self.left / self.step))
        placed = torch.baddbmm(offset, left, half_turned).clamp_(-self.positions, self.positions).round_()
        # Of a row of such a matrix, float32 holds the square in full.
        squares_B = torch.linalg.vecdot(placed, placed).sum(1, dtype=torch.float64).to(torch.int32)
        return Placed(placed.view(filled_BE.shape).to(torch.int8), squares_B, lengths_B)

    def reach(self, distances_B: Tensor, lengths_B: Tensor) -> Tensor:
        """Squared grid distances [B] float64 that no point within ``distances_B`` of a query exceeds.

        Args:
            distances_B: exact distances.
            lengths_B: how far from the grid's centre the queries are.

        A coordinate that differs by x steps differs by x on average on the grid, by ``variance ≤ 1/4`` more in the
        square, and the square takes two values at most ``2|x| + 1`` apart.
        """
        # The point is at most ``length + distance`` from the centre.
        steps_B = (distances_B + self._rounding() * (2 * lengths_B + distances_B)) / self.step
        width = self.offset.numel()
        return steps_B.square() + width / 4 + DEVIATION * (2 * steps_B + math.sqrt(width))

    def _rounding(self) -> float:
        """What float32 may add to a distance, as a share of the distances from the centre of its points.

        A product with an orthogonal matrix of n columns is off by n roundings of a coordinate at most, by √n as many
        of all n.
        """
        return torch.finfo(torch.float32).eps * (8 + sum(len(side) ** 1.5 for side in (self.left, self.right)))


def near(queries: Placed, items: Placed, out_BM: Tensor) -> Tensor:
    """Squared grid distances [B, M] int32, less the square of the query itself: exact, so the same in any block."""
    for part in slices(len(items.squares), len(items.squares) if out_BM.is_cuda else TILE):
        torch.sub(items.squares[part], _dots(queries.points, items.points[part]), alpha=2, out=out_BM[:, part])
    return out_BM


def _dots(queries_BE: Tensor, items_ME: Tensor) -> Tensor:
    if not queries_BE.is_cuda:
        return torch._int_mm(queries_BE, items_ME.T)
    # CUDA multiplies 17 rows and more by multiples of 8.
    rows, items = len(queries_BE), len(items_ME)
    queries_BE = functional.pad(queries_BE, (0, 0, 0, max(0, 32 - rows)))
    items_ME = functional.pad(items_ME, (0, 0, 0, -items % 8))
    return torch._int_mm(queries_BE, items_ME.T)[:rows, :items]


def _rotation(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0].float()
