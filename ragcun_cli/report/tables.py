"""Build a table from options. The same options and results give the same table, so `report verify` can make it
again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.recipe.problems import did_you_mean
from ragcun_cli.report.collect import collect
from ragcun_cli.report.comparison import ComparisonSettings
from ragcun_cli.report.cost import build_cost
from ragcun_cli.report.geometry_table import build_geometry
from ragcun_cli.report.robustness import build_robustness
from ragcun_cli.report.rows import Row, choose_rows, find_baseline, fold
from ragcun_cli.report.scores import build_scores, paper_columns, plain_columns
from ragcun_cli.report.selection import primary_rows
from ragcun_cli.report.statistics.corrections import require_correction
from ragcun_cli.report.table import ResultTable

_OF_SCORES = ("metric", "baseline", "correction", "primary")
# Presets, and the options that each of them ignores.
IDLE = {
    "scores": ("dollars_per_hour",),
    "paper": ("datasets", "dollars_per_hour"),
    "geometry": (*_OF_SCORES, "dollars_per_hour"),
    "cost": (*_OF_SCORES, "datasets"),
    "robustness": (*_OF_SCORES, "dollars_per_hour"),
}
PRESETS = tuple(IDLE)


@dataclass(frozen=True)
class TableOptions:
    """The options of `ragcun report table`. runs, dollars_per_hour: for the cost preset."""

    preset: str = "scores"
    metric: str = "ndcg@10"
    datasets: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    baseline: str | None = None
    correction: str = "holm"
    runs: str = "checkpoints"
    dollars_per_hour: float | None = None
    primary: tuple[str, ...] = ()

    @classmethod
    def of(cls, content: Any) -> TableOptions:
        """Read the options that a table records.

        Raises:
            DataError: if these are not options.
        """
        try:
            known = {field.name for field in fields(cls)}
            given: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
            }
            if set(given) - known:
                raise TypeError(f"unknown: {', '.join(sorted(set(given) - known))}")
            for key in ("preset", "metric", "correction", "runs"):
                if not isinstance(given.get(key, ""), str):
                    raise TypeError(f"{key} is not text")
            return cls(**given)
        except (TypeError, AttributeError) as error:
            raise DataError(f"these are not the options of a table ({error})") from None


def read_rows(results: Path, names: Sequence[str]) -> list[Row]:
    """Read the rows named, or all.

    Raises:
        UsageError, DataError: as raised by `collect`, `fold` and `choose_rows`.
    """
    return choose_rows(fold(collect(results)), names)


def build_table(results: Path, options: TableOptions) -> ResultTable:
    """Build the table of a preset.

    Raises:
        UsageError: naming the flag that asks for something that is not there.
        DataError: if results cannot be read or compared.
    """
    if options.preset not in PRESETS:
        known = did_you_mean(options.preset, list(PRESETS))
        raise UsageError(f"--preset {options.preset}: there is no such preset; {known}")
    require_correction(options.correction)
    price = options.dollars_per_hour
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise UsageError(f"--dollars-per-hour {price}: not a price")
    every = fold(collect(results))
    rows = choose_rows(every, options.rows)
    recorded = asdict(options)
    _refuse_idle(options)
    if options.preset == "geometry":
        return build_geometry(rows, options.datasets, recorded)
    if options.preset == "cost":
        return build_cost(rows, Path(options.runs), price, recorded)
    if options.preset == "robustness":
        return build_robustness(rows, options.datasets, recorded)
    columns = paper_columns(rows) if options.preset == "paper" else plain_columns(rows, options.datasets)
    baseline = find_baseline(every, options.baseline)
    declared = primary_rows(options.primary, every, baseline)
    settings = ComparisonSettings(options.metric, options.correction, declared)
    return build_scores(rows, columns, settings, baseline, recorded, every)


def _refuse_idle(options: TableOptions) -> None:
    """Refuse options that the preset ignores, so that no table looks as if they had applied."""
    for name in IDLE[options.preset]:
        if getattr(options, name) != getattr(TableOptions(), name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: the preset `{options.preset}` ignores it", "Leave one of the two out.")
