"""Read rows from Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from ragcun_cli.data.triples.columns import NAMES_EXPECTED, Columns, find_columns, require_distinct
from ragcun_cli.data.triples.rows import RowBlock, clean, lists_of
from ragcun_cli.errors import DataError

ROWS_AT_A_TIME = 20_000


def read_parquet(path: Path) -> tuple[Columns, Iterator[RowBlock]]:
    """Read the columns by name, and all rows; errors number rows from 1.

    Raises:
        DataError: if the file cannot be read, or its columns have other names or types.
    """
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a complete Parquet file ({error})", "Get it again.") from None
    require_distinct(file.schema_arrow.names, str(path))
    columns = find_columns(file.schema_arrow.names)
    if columns is None:
        raise DataError(f"{path}: no usable columns: {', '.join(file.schema_arrow.names)}", NAMES_EXPECTED)
    for name in (columns.query, columns.positive, *columns.negatives):
        kind = file.schema_arrow.field(name).type
        of_nulls = name in columns.negatives and _is_nulls(kind)
        if not _is_text(kind) and not (name != columns.query and _is_texts(kind)) and not of_nulls:
            raise DataError(f"{path}: column {name!r} contains {kind}, not texts")
    return columns, _blocks(file, path, columns)


def _blocks(file: pyarrow.parquet.ParquetFile, path: Path, columns: Columns) -> Iterator[RowBlock]:
    first = 1
    names = [columns.query, columns.positive, *columns.negatives]
    batches = file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=names)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: damaged at or after row {first} ({error})", "Get it again.") from None
        if batch is None:
            return
        yield _block(batch, path, columns, first)
        first += batch.num_rows


def _block(batch: pa.RecordBatch, path: Path, columns: Columns, first: int) -> RowBlock:
    queries = batch[columns.query].cast(pa.string())
    owners = np.arange(batch.num_rows)
    positives = batch[columns.positive]
    if _is_texts(positives.type):
        lengths = pc.fill_null(pc.list_value_length(positives), 0).to_numpy(zero_copy_only=False)
        owners = np.repeat(owners, np.maximum(lengths, 1))
        # Keep a row without any positive as one with a null, which `clean` reports.
        none = np.repeat(lengths == 0, np.maximum(lengths, 1))
        positives = positives.flatten().take(pa.array(np.cumsum(~none) - 1, mask=none))
    positives = positives.cast(pa.string())
    lists = [_negatives(batch[name]) for name in columns.negatives]
    counts = np.array([[len(each) for each in of_column] for of_column in lists], dtype=np.int64)
    totals = counts.sum(axis=0) if lists else np.zeros(batch.num_rows, dtype=np.int64)
    joined = [text for row in zip(*lists, strict=True) for of_column in row for text in of_column]
    negatives = lists_of(pa.array(joined, pa.string()), totals)
    taken = pa.array(owners)
    block = RowBlock(queries.take(taken), positives, negatives.take(taken))
    return clean(block, lambda row: f"{path}: row {first + int(owners[row])}")


def _negatives(column: pa.Array) -> list[list[str | None]]:
    """Return a list for each row; null means none."""
    values = column.to_pylist()
    if not _is_text(column.type) and not pa.types.is_null(column.type):
        return [each or [] for each in values]
    return [[] if each is None else [each] for each in values]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_nulls(kind: pa.DataType) -> bool:
    """Return whether this is the type that pyarrow gives a column with only nulls."""
    return pa.types.is_null(kind) or (pa.types.is_list(kind) and pa.types.is_null(kind.value_type))


def _is_texts(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in lists) and _is_text(kind.value_type)
