"""Compare each row with the baseline, on each dataset and on averages over datasets that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ragcun_cli.arrays import Figures
from ragcun_cli.report.averages import Average
from ragcun_cli.report.per_query import pair_scores
from ragcun_cli.report.rows import Row, mean_and_deviation
from ragcun_cli.report.statistics.corrections import corrected
from ragcun_cli.report.statistics.differences import Strata, standard_error
from ragcun_cli.report.statistics.paired import (
    bootstrap_interval,
    detectable_difference,
    effect_size,
    sign_flip_test,
    t_test,
)
from ragcun_cli.report.statistics.seeds import SeedAware, seed_aware
from ragcun_cli.results.layout import scored_on

SIGNIFICANCE = 0.05
ROUNDING = 1e-12


@dataclass(frozen=True)
class ComparisonSettings:
    """How to compare. correction: of the p-values of each family, cells and averages. primary: the rows whose
    comparisons form these families; None for all. Those of other rows are exploratory and not corrected.
    """

    metric: str = "ndcg@10"
    correction: str = "holm"
    primary: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Shown:
    """Which of all possible comparisons are wanted: names of rows, datasets and averages."""

    rows: tuple[str, ...]
    datasets: tuple[str, ...]
    averages: tuple[Average, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A row compared with the baseline per query, after averaging over seeds; scores are from 0 to 1.

    where: a dataset, or the average's label. trained: whether either side was; otherwise there are no seeds. p:
    sign-flip; p_t: paired t. interval: 95 %, bootstrap over queries. over_seeds: including seed variance; None if a
    side was trained only once. p_corrected: p corrected over `family` comparisons (an average's `over_seeds.p` if there
    is one); for an exploratory comparison, which is in no family, p itself. detectable: what would be found 8
    times in 10 at the correction's strictest step. All are None if a dataset (or one of its parts) has a single
    query. split: the qrels that were scored, empty for an average.
    """

    row: str
    baseline: str
    where: str
    is_average: bool
    metric: str
    score: float
    score_deviation: float | None
    score_seeds: int
    baseline_score: float
    baseline_deviation: float | None
    baseline_seeds: int
    paired_seeds: bool
    trained: bool
    queries: int
    wins: int
    losses: int
    difference: float
    p: float | None
    p_t: float | None
    p_corrected: float | None
    correction: str
    family: int
    interval: tuple[float, float] | None
    effect_size: float | None
    detectable: float | None
    over_seeds: SeedAware | None
    split: str = ""
    exploratory: bool = False

    @property
    def p_judged(self) -> float | None:
        """The p-value that decides the verdict, before correction."""
        return self.over_seeds.p if self.is_average and self.over_seeds is not None else self.p

    @property
    def scored_on(self) -> str:
        """The dataset with its split and queries; for an average, its label."""
        return self.where if self.is_average else scored_on(self.where, self.split, self.queries)

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference shown`: by the corrected p-value and, where there are seeds, only if
        the interval that includes seed variance excludes 0 too. `exploratory` if nothing may be claimed.
        """
        if self.exploratory:
            return "exploratory"
        if self.p_corrected is None or not self.p_corrected < SIGNIFICANCE or self.difference == 0:
            return "no difference shown"
        if self.over_seeds is not None and self.over_seeds.interval[0] <= 0 <= self.over_seeds.interval[1]:
            return "no difference shown"
        return "better" if self.difference > 0 else "worse"

    def entry(self) -> dict[str, Any]:
        """The comparison as a dictionary, for JSON."""
        content = {key: value for key, value in self.__dict__.items() if key != "over_seeds"}
        return {
            **content,
            "verdict": self.verdict,
            "over_seeds": None if self.over_seeds is None else self.over_seeds.entry(),
        }


@dataclass(frozen=True)
class _Pair:
    """Scores of a row and of the baseline, (seeds, queries) each."""

    row: Row
    baseline: Row
    where: str
    is_average: bool
    first: Figures
    second: Figures
    strata: Strata

    @property
    def differences(self) -> Figures:
        """The (queries,) differences between means over seeds."""
        return _without_rounding(self.first.mean(axis=0) - self.second.mean(axis=0))

    @property
    def testable(self) -> bool:
        return self.strata.smallest > 1

    @property
    def paired(self) -> bool:
        """Whether both were trained with the same seeds."""
        return bool(self.row.seeds) and self.row.seeds == self.baseline.seeds

    def over_seeds(self) -> SeedAware | None:
        """The result with seed variance; None if a side was trained only once, or neither was trained here."""
        once = any(side.trained and len(side.members) < 2 for side in (self.row, self.baseline))
        return None if once or not self.testable else seed_aware(self.first, self.second, self.strata, self.paired)


def compare(
    every: Sequence[Row],
    baseline: Row,
    datasets: Sequence[str],
    shown: Shown,
    settings: ComparisonSettings,
    intervals: bool = True,
) -> list[Comparison]:
    """Compare all other rows with the baseline on each dataset and average that both have in full; return those shown.

    p-values are corrected over every row and dataset there is, so that choosing what to show changes no verdict.

    Args:
        every, datasets: all rows, and all datasets, of the results.
        intervals: False leaves out bootstrap intervals, for a table's marks.

    Raises:
        DataError: as raised by `pair_scores`.
    """
    cells: list[_Pair] = []
    pooled: list[_Pair] = []
    for row in (each for each in every if each is not baseline):
        shared = [name for name in datasets if _scored(row, name, settings) and _scored(baseline, name, settings)]
        pairs = {name: _pair(row, baseline, name, settings.metric) for name in shared}
        cells += pairs.values()
        pooled += [
            _average(average, [pairs[name] for name in average.datasets])
            for average in shown.averages
            if set(average.datasets) <= set(shared)
        ]
    return [
        *_family(cells, shown.rows, shown.datasets, settings, intervals),
        *_family(pooled, shown.rows, [average.label for average in shown.averages], settings, intervals),
    ]


def differences_per_query(row: Row, baseline: Row, dataset: str, metric: str) -> tuple[tuple[str, ...], Figures]:
    """Query ids, and (queries,) differences between means over seeds."""
    one, other = pair_scores(row, baseline, dataset, metric)
    return one.query_ids, _without_rounding(one.scores.mean(axis=0) - other.scores.mean(axis=0))


def _without_rounding(values: Figures) -> Figures:
    """Set to 0 the differences of equal scores whose means over seeds differ in the last digit."""
    return np.where(np.abs(values) < ROUNDING, 0.0, values)


def _scored(row: Row, dataset: str, settings: ComparisonSettings) -> bool:
    return bool(row.scores(dataset, settings.metric))


def _pair(row: Row, baseline: Row, dataset: str, metric: str) -> _Pair:
    one, other = pair_scores(row, baseline, dataset, metric)
    return _Pair(row, baseline, dataset, False, one.scores, other.scores, one.strata)


def _average(average: Average, parts: Sequence[_Pair]) -> _Pair:
    return replace(
        parts[0],
        where=average.label,
        is_average=True,
        first=np.concatenate([part.first for part in parts], axis=1),
        second=np.concatenate([part.second for part in parts], axis=1),
        strata=Strata.equal([part.strata for part in parts]),
    )


def _family(
    pairs: Sequence[_Pair], rows: Sequence[str], places: Sequence[str], settings: ComparisonSettings, intervals: bool
) -> list[Comparison]:
    """Test and correct the pairs together, and compute everything else for those shown."""
    tested = [pair for pair in pairs if pair.testable and _is_primary(pair, settings)]
    p_values = {(pair.row.name, pair.where): _judge(pair) for pair in tested}
    adjusted = dict(zip(p_values, corrected(list(p_values.values()), settings.correction), strict=True))
    shown = [pair for pair in pairs if pair.row.name in rows and pair.where in places]
    for pair in shown:
        if pair.testable and not _is_primary(pair, settings):
            adjusted[pair.row.name, pair.where] = _judge(pair)
    return [_compared(pair, settings, len(tested), adjusted.get((pair.row.name, pair.where)), intervals)
            for pair in shown]  # fmt: skip


def _is_primary(pair: _Pair, settings: ComparisonSettings) -> bool:
    return settings.primary is None or pair.row.name in settings.primary


def _judge(pair: _Pair) -> float:
    """The p-value: over seeds and queries together for an average with seeds, otherwise over queries."""
    over_seeds = pair.over_seeds() if pair.is_average else None
    return sign_flip_test(pair.differences, pair.strata) if over_seeds is None else over_seeds.p


def _compared(
    pair: _Pair, settings: ComparisonSettings, family: int, p_corrected: float | None, intervals: bool
) -> Comparison:
    row, baseline, strata, values, testable = pair.row, pair.baseline, pair.strata, pair.differences, pair.testable
    score, deviation = mean_and_deviation([strata.mean(each) for each in pair.first])
    baseline_score, baseline_deviation = mean_and_deviation([strata.mean(each) for each in pair.second])
    over_seeds = pair.over_seeds()
    by_seeds = pair.is_average and over_seeds is not None  # its interval is then the one stated
    level = SIGNIFICANCE if settings.correction == "none" else SIGNIFICANCE / max(family, 1)
    return Comparison(
        row=row.name,
        baseline=baseline.name,
        where=pair.where,
        is_average=pair.is_average,
        metric=settings.metric,
        score=score,
        score_deviation=deviation,
        score_seeds=len(pair.first),
        baseline_score=baseline_score,
        baseline_deviation=baseline_deviation,
        baseline_seeds=len(pair.second),
        paired_seeds=pair.paired,
        trained=row.trained or baseline.trained,
        queries=len(values),
        wins=int((values > 0).sum()),
        losses=int((values < 0).sum()),
        difference=strata.mean(values),
        p=sign_flip_test(values, strata) if testable else None,
        p_t=t_test(values, strata) if testable else None,
        p_corrected=p_corrected,
        correction=settings.correction,
        family=family,
        interval=bootstrap_interval(values, strata) if testable and intervals and not by_seeds else None,
        effect_size=effect_size(values, strata) if testable else None,
        detectable=_detectable(values, strata, over_seeds if pair.is_average else None, level) if testable else None,
        over_seeds=over_seeds,
        split="" if pair.is_average else pair.row.first.datasets[pair.where].split,
        exploratory=not _is_primary(pair, settings),
    )


def _detectable(values: Figures, strata: Strata, over_seeds: SeedAware | None, level: float) -> float | None:
    """The detectable difference, from the same spread as the verdict; None if there is no spread."""
    error = standard_error(values, strata)
    spread, degrees = (error.value, error.degrees) if over_seeds is None else (over_seeds.error, over_seeds.degrees)
    return detectable_difference(spread, degrees, level) if spread > 0 else None
