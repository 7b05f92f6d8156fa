"""Compare the passages' IsoScore with the baseline's: how much it differs, and how much chance allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ragcun_cli.report.comparison import SIGNIFICANCE
from ragcun_cli.report.rows import Row, mean_and_deviation
from ragcun_cli.report.statistics.corrections import corrected
from ragcun_cli.report.statistics.differences import degrees_of_freedom
from ragcun_cli.report.statistics.seeds import SeedAware, interval_of

NORMAL_HALF = 1.96  # half an interval in standard errors; IsoScore's intervals are over at most 50,000 texts


@dataclass(frozen=True)
class IsotropyComparison:
    """IsoScore of the passages against the baseline's, the mean over datasets that both have.

    between: 95 % interval of the difference, None if neither seeds nor texts show how much it varies. with_seeds:
    whether it includes seed variance. p_corrected: corrected over `family` comparisons.
    """

    row: str
    baseline: str
    datasets: tuple[str, ...]
    score: float
    score_deviation: float | None
    baseline_score: float
    baseline_deviation: float | None
    between: SeedAware | None
    with_seeds: bool
    trained: bool
    p_corrected: float | None = None
    correction: str = "holm"
    family: int = 1
    exploratory: bool = False

    @property
    def difference(self) -> float:
        """The difference between the means."""
        return self.score - self.baseline_score

    @property
    def verdict(self) -> str:
        """`more isotropic`, `less isotropic`, `no difference shown`, or `exploratory` (nothing may be claimed)."""
        if self.exploratory:
            return "exploratory"
        if self.p_corrected is None or not self.p_corrected < SIGNIFICANCE:
            return "no difference shown"
        return "more isotropic" if self.difference > 0 else "less isotropic"

    def entry(self) -> dict[str, Any]:
        """The comparison as a dictionary, for JSON."""
        between = None if self.between is None else self.between.entry()
        return {**self.__dict__, "verdict": self.verdict, "difference": self.difference, "between": between}


def compare_isotropy(
    rows: Sequence[Row], baseline: Row, datasets: Sequence[str], correction: str, primary: Sequence[str] | None = None
) -> list[IsotropyComparison]:
    """Compare every other row whose IsoScore was measured where the baseline's was.

    primary: the rows that are corrected over, None for all; the others are exploratory.
    """
    compared = []
    for row in rows:
        shared = [name for name in datasets if row.isoscores(name) and baseline.isoscores(name)]
        if row is not baseline and shared:
            compared.append(_compare_isotropy(row, baseline, tuple(shared)))
    compared = [replace(each, exploratory=primary is not None and each.row not in primary) for each in compared]
    known = [each.between.p for each in compared if each.between is not None and not each.exploratory]
    adjusted = iter(corrected(known, correction))
    return [
        replace(each, p_corrected=_corrected(each, adjusted), correction=correction, family=len(known))
        for each in compared
    ]


def _corrected(comparison: IsotropyComparison, adjusted: Iterator[float]) -> float | None:
    if comparison.between is None:
        return None
    return comparison.between.p if comparison.exploratory else next(adjusted)


def _compare_isotropy(row: Row, baseline: Row, datasets: tuple[str, ...]) -> IsotropyComparison:
    first, second = (
        np.array([[member.isoscore(name) for name in datasets] for member in each.members], dtype=np.float64)
        for each in (row, baseline)
    )
    score, deviation = mean_and_deviation(first.mean(axis=1).tolist())
    baseline_score, baseline_deviation = mean_and_deviation(second.mean(axis=1).tolist())
    # Both embedded the same texts, so their errors partly cancel; treating them as independent ignores that.
    texts = _text_variance(row, datasets) + _text_variance(baseline, datasets)
    paired = bool(row.seeds) and row.seeds == baseline.seeds
    samples = [first - second] if paired else [each for each in (first, second) if len(each) > 1]
    with_seeds = bool(samples) and all(len(each.members) > 1 for each in (row, baseline) if each.trained)
    variances, degrees = [texts], [np.inf]
    if with_seeds:
        variances += [float(sample.mean(axis=1).var(ddof=1)) / len(sample) for sample in samples]
        degrees += [len(sample) - 1 for sample in samples]
    between = None
    if np.isfinite(sum(variances)) and sum(variances) > 0:
        freedom = degrees_of_freedom(np.array(variances), np.array(degrees))
        between = interval_of(score - baseline_score, float(np.sqrt(sum(variances))), freedom)
    return IsotropyComparison(
        row.name, baseline.name, datasets, score, deviation, baseline_score, baseline_deviation, between, with_seeds,
        row.trained or baseline.trained,
    )  # fmt: skip


def _text_variance(row: Row, datasets: Sequence[str]) -> float:
    """The variance over texts of the mean over datasets, from intervals; infinite if one is missing. Seeds, which all
    saw the same texts, are averaged.
    """
    total = 0.0
    for name in datasets:
        sides = [member.side(name, "passages") for member in row.members]
        intervals = [None if side is None else side.interval for side in sides]
        if not all(intervals):
            return float("inf")
        errors = [(interval[1] - interval[0]) / 2 / NORMAL_HALF for interval in intervals if interval]
        total += float(np.mean(np.square(errors))) / len(datasets) ** 2
    return total
