"""Which part of the results a report is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Selection:
    """datasets, rows: those shown; all where none is named. baseline: None for the only arm that can be one.
    correction: of the p-values. primary: planned comparisons, as 'ROW vs BASELINE'; where there are none, all are
    corrected.
    """

    metric: str = "ndcg@10"
    datasets: Sequence[str] = ()
    rows: Sequence[str] = ()
    baseline: str | None = None
    correction: str = "holm"
    primary: Sequence[str] = ()
