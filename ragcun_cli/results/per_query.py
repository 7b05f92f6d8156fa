"""<dataset>.queries.parquet: every metric of every query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet

from ragcun_cli import files
from ragcun_cli.arrays import Figures
from ragcun_cli.errors import DataError

QUERY_ID = "query_id"


@dataclass(frozen=True)
class PerQuery:
    """Scores per query. figures: metric -> (n,), in the order of query_ids."""

    query_ids: list[str]
    figures: dict[str, Figures]


def write_per_query(path: Path, query_ids: Sequence[str], figures: Mapping[str, Figures]) -> None:
    """Write the scores of all queries, or nothing."""
    with files.replacing(path) as temporary, temporary.open("wb") as stream:
        parquet.write_table(arrow.table({QUERY_ID: list(query_ids), **figures}), stream)


def read_per_query(path: Path, metrics: Sequence[str] | None = None) -> PerQuery:
    """Read scores per query. metrics: those that are wanted; None for all.

    Raises:
        DataError: if the file or one of these cannot be read.
    """
    try:
        table = parquet.read_table(path, columns=None if metrics is None else [QUERY_ID, *metrics])
        names = metrics if metrics is not None else [name for name in table.column_names if name != QUERY_ID]
        figures = {name: table[name].to_numpy().astype(np.float64) for name in names}
        return PerQuery(table[QUERY_ID].to_pylist(), figures)
    except (OSError, arrow.ArrowException, KeyError) as error:
        if metrics is None:
            raise DataError(f"{path} cannot be read ({error})", "Evaluate again.") from None
        what = f"per-query scores of {', '.join(metrics)}"
        raise DataError(f"{path}: has no readable {what} ({error})", "Evaluate again.") from None
