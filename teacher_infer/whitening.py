"""Evening out the directions of text embeddings."""

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 65_536  # items at work at a time


class Whitening(NamedTuple):
    """An affine map of embeddings [B, E]: less the mean, into the axes of the principal components, each scaled."""

    mean_E: Tensor
    axes_EC: Tensor
    """float64, scaled."""

    def __call__(self, embeddings_BE: Tensor) -> Tensor:
        """The embeddings whitened [B, C] float32."""
        return ((embeddings_BE.double() - self.mean_E) @ self.axes_EC).float().contiguous()


def whitening(items_NE: Tensor, power: float) -> Whitening:
    """The map that divides each principal component of the item embeddings by its standard deviation to ``power``.

    Sentence embeddings crowd into a few directions that say what all titles have in common; evening the directions out
    lets the others tell items apart (Su et al., "Whitening sentence representations", 2021). Where the data have fewer
    directions than the model, the empty ones are zero. Items are read in blocks, three times.
    """
    count, width = items_NE.shape
    mean_E, squares_EE = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
    for block_BE in items_NE.split(BLOCK):
        mean_E += block_BE.double().sum(0) / count
    for block_BE in items_NE.split(BLOCK):
        centred_BE = block_BE.double() - mean_E
        squares_EE.addmm_(centred_BE.T, centred_BE)
    squares_C, axes_EC = torch.linalg.eigh(squares_EE)
    spread_C = squares_C.flip(0).clamp(min=0).sqrt()
    axes_EC = axes_EC.flip(1)
    present_C = spread_C > spread_C.max() * 1e-6
    signs_C = _signs(items_NE, mean_E, axes_EC)
    scaled_C = torch.where(present_C, signs_C * spread_C.clamp(min=1e-300) ** -power, 0.0)
    return Whitening(mean_E, (axes_EC * scaled_C).contiguous())


def _signs(items_NE: Tensor, mean_E: Tensor, axes_EC: Tensor) -> Tensor:
    """A component's sign is arbitrary: that of the item farthest along it is made positive, the same on any machine."""
    farthest_C = torch.zeros(axes_EC.shape[1], dtype=torch.float64)
    for block_BE in items_NE.split(BLOCK):
        along_BC = (block_BE.double() - mean_E) @ axes_EC
        most_C = along_BC.gather(0, along_BC.abs().argmax(0)[None])[0]
        farthest_C = torch.where(most_C.abs() > farthest_C.abs(), most_C, farthest_C)
    return farthest_C.sign()
