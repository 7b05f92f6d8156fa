"""Terms on directions alone: one view's embeddings, normalised, spread over the unit sphere."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

UNIFORMITY_SCALE = 2.0


def uniformity(embeddings: Tensor) -> Tensor:
    """log mean_{i != j} exp(-2 ||u_i - u_j||^2) of the normalised embeddings (arXiv 2005.10242, Section 4.1.2).

    embeddings: (N, D) float32, N >= 2. A scalar; about -4 at best, 0 where all directions are equal.
    """
    distances = 2 - 2 * _cosines_of_pairs(embeddings)
    return torch.logsumexp(-UNIFORMITY_SCALE * distances, dim=0) - math.log(len(distances))


def spread_out(embeddings: Tensor) -> Tensor:
    """Global orthogonal regularisation: M1^2 + max(0, M2 - 1 / D) (arXiv 1708.06320, Eq. 8), a scalar.

    M1 and M2 are the mean and the mean square of the cosines of different texts; on the uniform sphere they are 0
    and 1 / D. embeddings: (N, D) float32, N >= 2.
    """
    cosines = _cosines_of_pairs(embeddings)
    second_moment = cosines.square().mean()
    return cosines.mean().square() + functional.relu(second_moment - 1 / embeddings.shape[1])


def _cosines_of_pairs(embeddings: Tensor) -> Tensor:
    """Return the cosine of each pair of different texts once, (N (N - 1) / 2,)."""
    units = functional.normalize(embeddings, dim=1)
    rows, columns = torch.triu_indices(len(units), len(units), offset=1, device=units.device)
    return (units @ units.T)[rows, columns]
