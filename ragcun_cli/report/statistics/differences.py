"""Per-query differences between two rows, and their mean, which a table shows.

The mean is a weighted mean over strata: a single dataset is one stratum, CQADupStack has its twelve forums, and
an average over datasets has all of theirs. So one formula serves both the table's cells and its averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragcun_cli.arrays import Figures


@dataclass(frozen=True)
class Strata:
    """Which of n queries belong together. sizes: queries per stratum; weights: of the strata in the mean, adding up to
    1.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]

    @classmethod
    def single(cls, queries: int) -> Strata:
        """One stratum of all queries, for a plain mean."""
        return cls((queries,), (1.0,))

    @classmethod
    def equal(cls, parts: Sequence[Strata]) -> Strata:
        """The strata of all parts, for the unweighted mean of the parts' means."""
        return cls(
            tuple(size for part in parts for size in part.sizes),
            tuple(weight / len(parts) for part in parts for weight in part.weights),
        )

    @property
    def smallest(self) -> int:
        """The number of queries in the smallest stratum; with fewer than two, its spread is unknown."""
        return min(self.sizes)

    def shares(self) -> Figures:
        """Each query's weight in the mean, as (n,)."""
        return np.repeat(np.array(self.weights) / np.array(self.sizes), self.sizes)

    def split(self, values: Figures) -> list[Figures]:
        """Split (..., n) values along the last axis into one array per stratum."""
        return np.split(values, np.cumsum(self.sizes)[:-1], axis=-1)

    def mean(self, values: Figures) -> float:
        """The mean of (n,) values."""
        return float(values @ self.shares())


@dataclass(frozen=True)
class StandardError:
    """The standard error of a mean, with its degrees of freedom."""

    value: float
    degrees: float


def standard_error(values: Figures, strata: Strata) -> StandardError:
    """The standard error of the mean of (n,) values; degrees of freedom by Satterthwaite, n - 1 for one stratum."""
    variances = np.array([part.var(ddof=1) / len(part) for part in strata.split(values)]) * np.square(strata.weights)
    return StandardError(
        float(np.sqrt(variances.sum())), degrees_of_freedom(variances, np.array([size - 1 for size in strata.sizes]))
    )


def degrees_of_freedom(variances: Figures, degrees: Figures) -> float:
    """The degrees of freedom of a sum of independent variance estimates (Satterthwaite 1946)."""
    spread = (variances**2 / degrees).sum()
    return float(variances.sum() ** 2 / spread) if spread > 0 else float("inf")
