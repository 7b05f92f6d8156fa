"""The variance term: (std - 1)^2, with the standard deviation per dimension taken as its root mean square."""

from __future__ import annotations

from torch import Tensor


def standard_deviation(embeddings: Tensor) -> Tensor:
    """sqrt(tr(covariance) / D), a scalar; the same in every rotation of the space.

    embeddings: (N, D) float32 with N >= 2; the covariance is the unbiased one.
    """
    # The floor keeps the gradient finite when all embeddings are equal.
    return embeddings.var(dim=0, unbiased=True).mean().clamp_min(1e-12).sqrt()


def variance_penalty(embeddings: Tensor) -> Tensor:
    """(std - 1)^2, a scalar."""
    return (standard_deviation(embeddings) - 1).square()
