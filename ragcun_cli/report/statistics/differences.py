"""Per-query differences between two rows, and the mean of them that a table shows.

The mean is one of strata, each with its weight: a single dataset is one stratum, CQADupStack has its twelve forums, and
an average over datasets has them all. So one formula serves a cell of the table and its average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragcun_cli.arrays import Figures


@dataclass(frozen=True)
class Strata:
    """Which of n queries belong together. sizes: queries of each stratum, in order; weights: theirs in the mean, 1 in
    all.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]

    @classmethod
    def single(cls, queries: int) -> Strata:
        """A plain mean."""
        return cls((queries,), (1.0,))

    @classmethod
    def equal(cls, parts: Sequence[Strata]) -> Strata:
        """The unweighted mean of the parts' means, each with strata of its own."""
        return cls(
            tuple(size for part in parts for size in part.sizes),
            tuple(weight / len(parts) for part in parts for weight in part.weights),
        )

    @property
    def smallest(self) -> int:
        """Queries of the smallest stratum: below two, nothing can be said of its spread."""
        return min(self.sizes)

    def shares(self) -> Figures:
        """(n,) Each query's weight in the mean."""
        return np.repeat(np.array(self.weights) / np.array(self.sizes), self.sizes)

    def split(self, values: Figures) -> list[Figures]:
        """(..., n) into one array a stratum, along the last axis."""
        return np.split(values, np.cumsum(self.sizes)[:-1], axis=-1)

    def mean(self, values: Figures) -> float:
        """Of (n,) values."""
        return float(values @ self.shares())


@dataclass(frozen=True)
class StandardError:
    """Of a mean, with its degrees of freedom."""

    value: float
    degrees: float


def standard_error(values: Figures, strata: Strata) -> StandardError:
    """Of the mean over strata of (n,) values; degrees of freedom by Satterthwaite, n - 1 for a single stratum."""
    variances = np.array([part.var(ddof=1) / len(part) for part in strata.split(values)]) * np.square(strata.weights)
    return StandardError(
        float(np.sqrt(variances.sum())), degrees_of_freedom(variances, np.array([size - 1 for size in strata.sizes]))
    )


def degrees_of_freedom(variances: Figures, degrees: Figures) -> float:
    """Of a sum of independent estimates of variance (Satterthwaite 1946)."""
    spread = (variances**2 / degrees).sum()
    return float(variances.sum() ** 2 / spread) if spread > 0 else float("inf")
