"""The mean difference with both things that chance decides: which queries were asked, and which seed was trained.

A test over queries speaks of the models at hand. A claim about how they were trained must also reckon with seeds, of
which there are few: percentiles of a bootstrap over three seeds are far too narrow (`benchmarks/significance.py`
shows by how much). So the variances of the two crossed factors are estimated, and Student's t does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ragcun_cli.arrays import Figures
from ragcun_cli.report.statistics.differences import Strata, degrees_of_freedom, standard_error
from ragcun_cli.report.statistics.paired import CONFIDENCE, t_quantile, two_sided


@dataclass(frozen=True)
class SeedAware:
    """A mean difference over seeds and queries: standard error, 95 % interval, and two-sided p-value."""

    error: float
    degrees: float
    interval: tuple[float, float]
    p: float

    def entry(self) -> dict[str, Any]:
        """For a program."""
        return {"interval": list(self.interval), "standard_error": self.error, "p": self.p}


def seed_aware(first: Figures, second: Figures, strata: Strata, paired: bool) -> SeedAware | None:
    """
    Args:
        first, second: (seeds, n) scores. A single seed's scores count as fixed, like those of an untouched encoder.
        paired: whether row i of both was trained with the same seed, so that their differences are what varies.

    Returns:
        None where neither has two seeds: nothing can be said of their spread.
    """
    mean = strata.mean(first.mean(axis=0) - second.mean(axis=0))
    over_queries = standard_error(first.mean(axis=0) - second.mean(axis=0), strata)
    samples = [first - second] if paired else [each for each in (first, second) if len(each) > 1]
    if not samples or len(samples[0]) < 2:
        return None
    # What is peculiar to each seed and query is in both variances, which makes the sum a little too large: taken off
    # once, intervals of three seeds would be too narrow where seeds matter, for so few seeds estimate badly.
    over_seeds = [float((sample @ strata.shares()).var(ddof=1)) / len(sample) for sample in samples]
    variances = [over_queries.value**2, *over_seeds]
    degrees = degrees_of_freedom(
        np.array(variances), np.array([over_queries.degrees, *(len(sample) - 1 for sample in samples)])
    )
    return interval_of(mean, float(np.sqrt(sum(variances))), degrees)


def interval_of(mean: float, error: float, degrees: float) -> SeedAware:
    """From a mean and its standard error."""
    half = t_quantile((1 + CONFIDENCE) / 2, degrees) * error
    p = two_sided(mean / error, degrees) if error > 0 else (1.0 if mean == 0 else 0.0)
    return SeedAware(error, degrees, (mean - half, mean + half), p)
