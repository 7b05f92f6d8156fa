"""Transforms of embeddings after training, instead of training for isotropy or to see how much loss they tolerate.

    none           as the model gives them
    center         x - mean
    whiten:ALPHA   (x - mean) U diag(l^(-ALPHA / 2)) U', l and U the covariance's eigenvalues and vectors: 0 centres,
                   1 makes the covariance the identity (Su et al., arXiv 2103.15316)
    int8           each dimension rounded to 256 steps between its least and greatest value
    binary         the sign of each dimension
    truncate:D     the first D dimensions

Mean, covariance and ranges come from passages: the corpus that is searched, or training passages. Never from
queries, which a live system does not have in advance. A transform treats queries and passages alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ragcun_cli.arrays import Figures
from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate.transform_names import Transform
from ragcun_cli.evaluate.vectors import PassageVectors

ROBUSTNESS = ("int8", "binary", "truncate:256", "truncate:128")
SMALLEST_EIGENVALUE = 1e-6  # of the greatest: anything below is noise from float32 and from too few passages
LEVELS = 255

Map = Callable[[Tensor], Tensor]  # (n, D) float32 -> (n, D') float32


def fitted(transform: Transform, passages: PassageVectors) -> Map:
    """Return the transform as a function of embeddings, with the mean, covariance or ranges of these passages.

    Raises:
        UsageError: if there are fewer dimensions than it should keep.
    """
    if transform.kind == "none":
        return _unchanged
    if transform.kind == "center":
        return _Center(_mean(passages))
    if transform.kind == "whiten":
        return _Whiten(_mean(passages), _whitening(_covariance(passages), transform.amount))
    if transform.kind == "int8":
        least, greatest = _ranges(passages)
        return _Steps(least, (greatest - least) / LEVELS)
    if transform.kind == "binary":
        return _sign
    if transform.amount > passages.dimensions:
        raise UsageError(
            f"--transform {transform.name}: the embeddings have {passages.dimensions} dimensions", "Truncate to fewer."
        )
    return _Truncate(int(transform.amount))


def unit_length(vectors: Tensor) -> Tensor:
    """Divide each vector by its length; the Euclidean order is then that of the cosine."""
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)


def _mean(passages: PassageVectors) -> Tensor:
    return torch.from_numpy(passages.mean().astype(np.float32))


def _covariance(passages: PassageVectors) -> Figures:
    """Return the covariance, (D, D), in a separate pass after the mean's, so that a large mean costs no digits."""
    centre, scatter = _mean(passages), torch.zeros(passages.dimensions, passages.dimensions, dtype=torch.float64)
    for _, block in passages.blocks():
        centred = block - centre
        scatter += (centred.T @ centred).double()
    return (scatter / max(len(passages) - 1, 1)).numpy()


def _ranges(passages: PassageVectors) -> tuple[Tensor, Tensor]:
    """Return the least and greatest value of each dimension, (D,) each."""
    bounds = [(block.amin(dim=0), block.amax(dim=0)) for _, block in passages.blocks()]
    least, greatest = (torch.stack(each) for each in zip(*bounds, strict=True))
    return least.amin(dim=0), greatest.amax(dim=0)


def _whitening(covariance: Figures, alpha: float) -> Tensor:
    values, vectors = np.linalg.eigh(covariance)
    # A direction that passages hardly use would be mostly amplified rounding error; it is left out.
    used = values > SMALLEST_EIGENVALUE * values[-1]
    scale = np.where(used, np.where(used, values, 1.0) ** (-alpha / 2), 0.0)
    return torch.from_numpy(((vectors * scale) @ vectors.T).astype(np.float32))


@dataclass(frozen=True)
class _Truncate:
    dimensions: int

    def __call__(self, vectors: Tensor) -> Tensor:
        return vectors[:, : self.dimensions]


@dataclass(frozen=True)
class _Center:
    mean: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        return vectors - self.mean


@dataclass(frozen=True)
class _Steps:
    least: Tensor
    step: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        safe = torch.where(self.step > 0, self.step, torch.ones(()))
        return ((vectors - self.least) / safe).round().clamp(0, LEVELS) * self.step + self.least


@dataclass(frozen=True)
class _Whiten:
    mean: Tensor
    matrix: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        return (vectors - self.mean) @ self.matrix


def _sign(vectors: Tensor) -> Tensor:
    return torch.where(vectors > 0, 1.0, -1.0)


def _unchanged(vectors: Tensor) -> Tensor:
    return vectors
