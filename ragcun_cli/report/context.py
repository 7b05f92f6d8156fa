"""What figures and the page are made from: rows, baseline and claims, read once."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.report.claims import Claims, claims_of_rows
from ragcun_cli.report.collect import collect
from ragcun_cli.report.comparison import Comparison
from ragcun_cli.report.rows import Row, choose_rows, find_baseline, fold
from ragcun_cli.report.scores import choose_datasets, require_metric
from ragcun_cli.report.selection import Selection
from ragcun_cli.report.statistics.corrections import require_correction

KINDS = ("pdf", "svg", "png")


@dataclass(frozen=True)
class ReportContext:
    """What to draw. every: all rows; rows: those chosen. named: whether the user named the datasets. claims: None
    without a baseline, or without anything to compare with it.
    """

    every: Sequence[Row]
    rows: Sequence[Row]
    baseline: Row | None
    datasets: Sequence[str]
    named: bool
    metric: str
    correction: str
    claims: Claims | None
    runs: Path
    primary: tuple[str, ...] = ()

    @property
    def comparisons(self) -> list[Comparison]:
        """All comparisons with the baseline: datasets, then averages."""
        return [] if self.claims is None else [*self.claims.datasets, *self.claims.averages]


def require_matplotlib() -> None:
    """Refuse to draw figures without matplotlib.

    Raises:
        EnvironmentUnfit: if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise EnvironmentUnfit("figures need matplotlib, which is not installed", "pip install 'ragcun[figures]'")


def load_context(results: Path, selection: Selection, runs: Path) -> ReportContext:
    """Read what figures and the page need. runs: where to find run folders that were moved.

    Raises:
        UsageError: if a flag asks for something that is not there.
        DataError: if results cannot be read or compared.
    """
    require_correction(selection.correction)
    every = fold(collect(results))
    chosen = choose_rows(every, selection.rows)
    against = find_baseline(every, selection.baseline)
    require_metric(every, selection.metric)
    claims = None
    if against is not None and any(row is not against for row in chosen):
        claims = claims_of_rows(every, chosen, against, selection)
    return ReportContext(
        every, chosen, against, choose_datasets(chosen, selection.datasets), bool(selection.datasets),
        selection.metric, selection.correction, claims, runs, tuple(selection.primary),
    )  # fmt: skip
