"""How isotropic a set of embeddings is.

IsoScore (Rudman et al., arXiv 2108.07344) equals (PR - 1) / (D - 1), with the participation ratio
PR = (tr S)^2 / tr(S^2) of the covariance S. Put in from a sample it is far too low: 0.72 for 1,000 draws of a
perfect N(0, I) in 384 dimensions. With U-statistics for (tr S)^2 and tr(S^2) (Chen, Zhang & Zhong 2010; closed
form of Himeno & Yamada 2014) it no longer depends on how many texts were embedded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MINIMUM_TEXTS = 4  # the U-statistics divide by n - 3


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


def measure_isotropy(embeddings: npt.NDArray[np.float32]) -> Isotropy:
    """Of embeddings (n, D) float32, n >= 2, as they are searched: before any normalisation."""
    values = embeddings.astype(np.float64)
    centred = values - values.mean(axis=0)
    return Isotropy(
        texts=len(values),
        dimensions=values.shape[1],
        isoscore=unbiased_isoscore(centred),
        mean_cosine=_mean_cosine(values),
        standard_deviation=float(np.sqrt((centred**2).sum() / (len(values) - 1) / values.shape[1])),
    )


def unbiased_isoscore(centred: npt.NDArray[np.float64]) -> float | None:
    """(PR - 1) / (D - 1) with unbiased estimates above and below the line, from centred embeddings (n, D)."""
    n, dimensions = centred.shape
    if n < MINIMUM_TEXTS or dimensions < 2:
        return None
    # The smaller of the two Gram matrices: both have the same squared norm.
    gram = centred @ centred.T if n <= dimensions else centred.T @ centred
    squared_norms = (centred**2).sum(axis=1)
    frobenius = (gram**2).sum() / (n - 1) ** 2
    trace = squared_norms.sum() / (n - 1)
    fourth = (squared_norms**2).sum() / (n - 1)
    factor = (n - 1) / (n * (n - 2) * (n - 3))
    trace_of_square = factor * ((n - 1) * (n - 2) * frobenius + trace**2 - n * fourth)
    square_of_trace = factor * (2 * frobenius + (n**2 - 3 * n + 1) * trace**2 - n * fourth)
    if trace_of_square <= 0:
        return None
    return float((square_of_trace / trace_of_square - 1) / (dimensions - 1))


def _mean_cosine(values: npt.NDArray[np.float64]) -> float | None:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    if (norms == 0).any():
        return None
    total = (values / norms).sum(axis=0)
    n = len(values)
    return float((total @ total - n) / (n * (n - 1)))
