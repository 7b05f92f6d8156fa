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
from ragcun_cli.console import StepProgress
from ragcun_cli.data.texts import Record, read_texts
from ragcun_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from ragcun_cli.model.encoder import Embeddings, IsotropicGaussianEncoder

ENDINGS = (".npy", ".parquet")
TEXTS_AT_A_TIME = 4096


@dataclass(frozen=True)
class EncodedFile:
    """texts, dimensions: the shape of what was written."""

    path: str
    texts: int
    dimensions: int


def require_ending(path: Path, overwrite: bool) -> None:
    """Refuse early what could not be written.

    Raises:
        UsageError: for another ending, or a file that is there.
    """
    if path.suffix not in ENDINGS:
        raise UsageError(f"--out {path}: {' or '.join(ENDINGS)} is expected", "The ending says which is written.")
    if path.exists() and not overwrite:
        raise UsageError(f"--out {path}: the file is there already", "Give --overwrite to replace it.")


def encode_file(encoder: IsotropicGaussianEncoder, source: Path, column: str | None, out: Path) -> EncodedFile:
    """Encode every text of `source` and write all of them, or nothing.

    `.npy`: (n, D) float32 in the file's order. Parquet: columns `id` and `embedding`, a list of D float32.

    Raises:
        UsageError, DataError: as `read_texts`; DataError also where there is no text.
    """
    count = sum(1 for _ in read_texts(source, column))  # also finds what is broken, before minutes of encoding
    if not count:
        raise DataError(f"{source}: there is no text in it")
    dimensions = encoder.settings.output_dim
    with StepProgress("encoding", count, "texts") as bar:
        parts = _parts(encoder, source, column, bar)
        with files.replacing(out) as temporary:
            if out.suffix == ".npy":
                _write_npy(temporary, parts, count, dimensions)
            else:
                _write_parquet(temporary, parts, dimensions)
    return EncodedFile(str(out), count, dimensions)


def _parts(
    encoder: IsotropicGaussianEncoder, source: Path, column: str | None, bar: StepProgress
) -> Iterator[tuple[list[str], Embeddings]]:
    """Ids and embeddings, so many at a time that neither texts nor embeddings need fit into memory."""
    records: Iterator[Record] = read_texts(source, column)
    while some := list(islice(records, TEXTS_AT_A_TIME)):
        yield [identity for identity, _ in some], encoder.encode([text for _, text in some], bar.advance)


def _write_npy(path: Path, parts: Iterator[tuple[list[str], Embeddings]], count: int, dimensions: int) -> None:
    # On the disk from the beginning: of a large corpus the embeddings do not fit into memory.
    whole = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, dimensions))
    start = 0
    for _, embeddings in parts:
        whole[start : start + len(embeddings)] = embeddings
        start += len(embeddings)
    whole.flush()


def _write_parquet(path: Path, parts: Iterator[tuple[list[str], Embeddings]], dimensions: int) -> None:
    schema = arrow.schema([("id", arrow.string()), ("embedding", arrow.list_(arrow.float32(), dimensions))])
    with parquet.ParquetWriter(path, schema) as writer:
        for ids, embeddings in parts:
            flat = arrow.array(embeddings.reshape(-1), arrow.float32())
            column = arrow.FixedSizeListArray.from_arrays(flat, dimensions)
            writer.write_table(arrow.Table.from_arrays([arrow.array(ids), column], schema=schema))
