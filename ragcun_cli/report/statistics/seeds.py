"""The mean difference, allowing for both sources of chance: which queries were asked and which seeds were trained.

A test over queries is about the models at hand. A claim about how they were trained must also allow for seeds, of
which there are few: percentiles of a bootstrap over three seeds are far too narrow (`benchmarks/significance.py`
shows by how much). So the variances of the two crossed factors are estimated, and Student's t gives the interval.
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
        """The result as a dictionary, for JSON."""
        return {"interval": list(self.interval), "standard_error": self.error, "p": self.p}


def seed_aware(first: Figures, second: Figures, strata: Strata, paired: bool) -> SeedAware | None:
    """Compare two arms over seeds and queries together.

    Args:
        first, second: (seeds, n) scores. A single seed's scores count as fixed, like those of an untouched encoder.
        paired: whether row i of both was trained with the same seed, so that their differences are the sample.

    Returns:
        None if neither has two seeds, since their spread is then unknown.
    """
    mean = strata.mean(first.mean(axis=0) - second.mean(axis=0))
    over_queries = standard_error(first.mean(axis=0) - second.mean(axis=0), strata)
    samples = [first - second] if paired else [each for each in (first, second) if len(each) > 1]
    if not samples or len(samples[0]) < 2:
        return None
    # The part specific to each seed and query is in both variances, which makes the sum a little too large. Subtracting
    # it once would make intervals over three seeds too narrow where seeds matter: so few seeds estimate it badly.
    over_seeds = [float((sample @ strata.shares()).var(ddof=1)) / len(sample) for sample in samples]
    variances = [over_queries.value**2, *over_seeds]
    degrees = degrees_of_freedom(
        np.array(variances), np.array([over_queries.degrees, *(len(sample) - 1 for sample in samples)])
    )
    return interval_of(mean, float(np.sqrt(sum(variances))), degrees)


def interval_of(mean: float, error: float, degrees: float) -> SeedAware:
    """The interval and p-value for a mean and its standard error."""
    half = t_quantile((1 + CONFIDENCE) / 2, degrees) * error
    p = two_sided(mean / error, degrees) if error > 0 else (1.0 if mean == 0 else 0.0)
    return SeedAware(error, degrees, (mean - half, mean + half), p)
