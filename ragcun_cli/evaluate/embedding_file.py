"""Embeddings of a file's texts, in a file: `.npy`, or Parquet with the texts' ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as arrow
from pyarrow import parquet

from ragcun_cli import files
from ragcun_cli.arrays import Vectors
from ragcun_cli.console import StepProgress, saying_if_interrupted
from ragcun_cli.data.texts import Record, read_texts
from ragcun_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from ragcun_cli.evaluate.embedding import Embedder

ENDINGS = (".npy", ".parquet")
TEXTS_AT_A_TIME = 4096
BYTES_OF_FLOAT = 4
INTERRUPTED = "Interrupted. What was encoded is kept: the same command continues from there."


@dataclass(frozen=True)
class EncodedFile:
    """What was written. texts, dimensions: its shape. kept: texts whose embeddings already existed."""

    path: str
    texts: int
    dimensions: int
    kept: int


def require_ending(path: Path, overwrite: bool) -> None:
    """Refuse early what could not be written.

    Raises:
        UsageError: for another ending, or a file that already exists.
    """
    if path.suffix not in ENDINGS:
        raise UsageError(f"--out {path}: expected {' or '.join(ENDINGS)}", "The ending decides which is written.")
    if path.exists() and not overwrite:
        raise UsageError(f"--out {path}: the file already exists", "Give --overwrite to replace it.")


def encode_file(embedder: Embedder, source: Path, column: str | None, out: Path) -> EncodedFile:
    """Embed every text of `source` and write all of them, or nothing. Stored embeddings are not computed again.

    `.npy`: (n, D) float32 in the file's order. Parquet: columns `id` and `embedding`, a list of D float32.

    Raises:
        UsageError, DataError: as `read_texts` says; DataError also if there is no text.
        ModelError: naming a text whose embedding is not finite.
        OSError: before the first text is encoded, if `out` cannot be written or the disk has no room for it.
    """
    count = sum(1 for _ in read_texts(source, column))  # also finds what is broken, before minutes of encoding
    if not count:
        raise DataError(f"{source}: it contains no text")
    dimensions = embedder.dimensions
    files.require_writable(out, count * dimensions * BYTES_OF_FLOAT)
    with saying_if_interrupted(INTERRUPTED), StepProgress("encoding", count, "texts") as bar:
        parts = _parts(embedder, source, column, bar)
        with files.replacing(out) as temporary:
            if out.suffix == ".npy":
                _write_npy(temporary, parts, count, dimensions)
            else:
                _write_parquet(temporary, parts, dimensions)
    return EncodedFile(str(out), count, dimensions, embedder.found)


def _parts(
    embedder: Embedder, source: Path, column: str | None, bar: StepProgress
) -> Iterator[tuple[list[str], Vectors]]:
    """Yield ids and embeddings in parts, so that neither texts nor embeddings need fit into memory."""
    records: Iterator[Record] = read_texts(source, column)
    while some := list(islice(records, TEXTS_AT_A_TIME)):
        ids = [identity for identity, _ in some]
        yield ids, embedder.vectors_of([text for _, text in some], ids, bar.advance)


def _write_npy(path: Path, parts: Iterator[tuple[list[str], Vectors]], count: int, dimensions: int) -> None:
    # Written, not mapped: a mapped file on a full disk kills the process.
    with path.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, dimensions)}
        np.lib.format.write_array_header_1_0(stream, header)
        written = 0
        for _, embeddings in parts:
            written += len(embeddings)
            stream.write(embeddings.astype("<f4", copy=False).tobytes())
    if written != count:
        raise DataError(f"the texts changed while they were encoded: {count} before, {written} after", "Run it again.")


def _write_parquet(path: Path, parts: Iterator[tuple[list[str], Vectors]], dimensions: int) -> None:
    schema = arrow.schema([("id", arrow.string()), ("embedding", arrow.list_(arrow.float32(), dimensions))])
    with path.open("wb") as stream, parquet.ParquetWriter(stream, schema) as writer:
        for ids, embeddings in parts:
            flat = arrow.array(embeddings.reshape(-1), arrow.float32())
            column = arrow.FixedSizeListArray.from_arrays(flat, dimensions)
            writer.write_table(arrow.Table.from_arrays([arrow.array(ids), column], schema=schema))
