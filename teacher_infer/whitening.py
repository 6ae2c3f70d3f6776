"""Evening out the directions of text embeddings."""

from typing import NamedTuple

import torch
from torch import Tensor


class Whitening(NamedTuple):
    """An affine map of embeddings [B, E]: less the mean, into the axes of the principal components, each scaled."""

    mean_E: Tensor
    axes_EC: Tensor
    """float64, scaled."""

    def __call__(self, embeddings_BE: Tensor) -> Tensor:
        """The embeddings whitened [B, C] float32."""
        return ((embeddings_BE.double() - self.mean_E) @ self.axes_EC).float().contiguous()


def whitening(embeddings_NE: Tensor, power: float) -> Whitening:
    """The map that divides each principal component of ``embeddings_NE`` by its standard deviation to ``power``.

    Sentence embeddings crowd into a few directions that say what all titles have in common; evening the directions out
    lets the others tell items apart (Su et al., "Whitening sentence representations", 2021). Where the data have fewer
    directions than the model, the empty ones are left out.
    """
    mean_E = embeddings_NE.double().mean(0)
    left_NC, spread_C, axes_CE = torch.linalg.svd(embeddings_NE.double() - mean_E, full_matrices=False)
    present_C = spread_C > spread_C.max() * 1e-6
    # A component's sign is arbitrary; its largest entry is made positive, so that every machine gives the same.
    signs_C = left_NC.gather(0, left_NC.abs().argmax(0)[None])[0].sign()
    scaled_C = torch.where(present_C, signs_C * spread_C.clamp(min=1e-300) ** -power, 0.0)
    return Whitening(mean_E, axes_CE.T * scaled_C)
