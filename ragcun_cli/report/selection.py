"""Which part of the results a report is about, and which comparisons it was made for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ragcun_cli.errors import UsageError
from ragcun_cli.recipe.problems import did_you_mean
from ragcun_cli.report.rows import Row

SEPARATOR = re.compile(r"\s+(?:vs\.?|versus|against)\s+")


@dataclass(frozen=True)
class Selection:
    """What a report covers. datasets, rows: those shown, or all if empty. baseline: None for the only possible one.
    correction: for the p-values. primary: planned comparisons, as 'ROW vs BASELINE'; if there are none, all are
    corrected.
    """

    metric: str = "ndcg@10"
    datasets: Sequence[str] = ()
    rows: Sequence[str] = ()
    baseline: str | None = None
    correction: str = "holm"
    primary: Sequence[str] = ()


def primary_rows(declared: Sequence[str], rows: Sequence[Row], baseline: Row | None) -> tuple[str, ...] | None:
    """The rows whose comparison with the baseline is primary; None if none is declared and all are corrected.

    declared: for example `isotropy vs baseline`.

    Raises:
        UsageError: if one is not a comparison of two rows, or not with the baseline.
    """
    if not declared:
        return None
    known = [row.name for row in rows]
    chosen = []
    for text in declared:
        parts = SEPARATOR.split(text.strip())
        if len(parts) != 2:
            raise UsageError(f"--primary {text!r}: expected 'ROW vs BASELINE'", f"Rows: {', '.join(known)}.")
        for name in parts:
            if name not in known:
                raise UsageError(f"--primary {text!r}: there is no row {name}; {did_you_mean(name, known)}")
        if baseline is None or parts[1] != baseline.name or parts[0] == parts[1]:
            cure = f"--baseline {parts[1]}" if parts[0] != parts[1] else "Name two different rows."
            against = "no baseline" if baseline is None else baseline.name
            raise UsageError(f"--primary {text!r}: primary comparisons must be against the baseline ({against})", cure)
        chosen.append(parts[0])
    return tuple(dict.fromkeys(chosen))
