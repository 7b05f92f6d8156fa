"""How isotropic a set of embeddings is.

IsoScore (Rudman et al., arXiv 2108.07344) equals (PR - 1) / (D - 1), with the participation ratio
PR = (tr S)^2 / tr(S^2) of the covariance S. Computed from a sample it is far too low: 0.72 for 1,000 draws of a
perfect N(0, I) in 384 dimensions. With U-statistics for (tr S)^2 and tr(S^2) (Chen, Zhang & Zhong 2010; closed
form of Himeno & Yamada 2014) it no longer depends on how many texts were embedded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragcun_cli.arrays import Figures, Vectors

MINIMUM_TEXTS = 4  # the U-statistics divide by n - 3
BLOCK = 65_536  # embeddings at a time


@dataclass(frozen=True)
class Isotropy:
    """The shape of a cloud of n embeddings in D dimensions.

    isoscore: unbiased; 1 is isotropic, 0 is a line (a little beyond either by chance), None below 4 texts or where
    all embeddings are equal.
    mean_cosine: of distinct pairs; says where the mean is, which IsoScore does not see.
    standard_deviation: per dimension, root mean square over dimensions.
    """

    texts: int
    dimensions: int
    isoscore: float | None
    mean_cosine: float | None
    standard_deviation: float


def measure_isotropy(embeddings: Vectors) -> Isotropy:
    """Measure embeddings (n, D) float32, n >= 2, as they are searched: before any normalisation."""
    n, dimensions = embeddings.shape
    mean = embeddings.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((dimensions, dimensions))  # the sum of outer products of centred embeddings
    fourth_powers = 0.0
    unit_sum = np.zeros(dimensions)
    has_zero = False
    # In blocks: float64 copies of nine million passages would not fit into memory.
    for start in range(0, n, BLOCK):
        values = embeddings[start : start + BLOCK].astype(np.float64)
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        has_zero |= bool((norms == 0).any())
        unit_sum += (values / np.where(norms == 0, 1, norms)).sum(axis=0)
        centred = values - mean
        scatter += centred.T @ centred
        fourth_powers += float(((centred**2).sum(axis=1) ** 2).sum())
    return Isotropy(
        texts=n,
        dimensions=dimensions,
        isoscore=_unbiased_isoscore(scatter, fourth_powers, n),
        mean_cosine=None if has_zero else float((unit_sum @ unit_sum - n) / (n * (n - 1))),
        standard_deviation=float(np.sqrt(np.trace(scatter) / (n - 1) / dimensions)),
    )


def _unbiased_isoscore(scatter: Figures, fourth_powers: float, n: int) -> float | None:
    """Return (PR - 1) / (D - 1), with unbiased estimates of PR's numerator and denominator.

    scatter: (D, D), the sum of c c^T over centred embeddings c; fourth_powers: the sum of ||c||^4.
    """
    dimensions = len(scatter)
    if n < MINIMUM_TEXTS or dimensions < 2:
        return None
    frobenius = (scatter**2).sum() / (n - 1) ** 2
    trace = np.trace(scatter) / (n - 1)
    fourth = fourth_powers / (n - 1)
    # Both are multiplied by n (n - 2) (n - 3) / (n - 1), which cancels in the ratio.
    trace_of_square = (n - 1) * (n - 2) * frobenius + trace**2 - n * fourth
    square_of_trace = 2 * frobenius + (n**2 - 3 * n + 1) * trace**2 - n * fourth
    if trace_of_square <= 0:
        return None
    return float((square_of_trace / trace_of_square - 1) / (dimensions - 1))
