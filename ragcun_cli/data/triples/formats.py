"""Recognise the format of a training file by its name or, if that is unclear, by its first bytes."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from ragcun_cli.data.lines import LFS_POINTER, require_utf8_kind
from ragcun_cli.errors import DataError

GZIP, ZSTANDARD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
COMPRESSIONS = {".gz": "gzip", ".zst": "zstandard"}
ENDINGS = {
    ".json": "JSON",
    ".jsonl": "JSON Lines",
    ".ndjson": "JSON Lines",
    ".tsv": "TSV",
    ".csv": "CSV",
    ".parquet": "Parquet",
}
SNIFFED = 1 << 16  # bytes
TRIPLE_EXAMPLE = '{"query": "...", "positive": "...", "negative": "..."}'
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class TripleFile:
    """A file of training data. format: one of ENDINGS' values; compression: gzip, zstandard or empty."""

    path: Path
    format: str
    compression: str

    @property
    def described(self) -> str:
        """Format and compression, such as `JSON Lines, gzip`."""
        return f"{self.format}, {self.compression}" if self.compression else self.format

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open the file and yield its uncompressed bytes.

        Raises:
            DataError: if the compressed file is damaged or incomplete.
        """
        with self.path.open("rb") as raw:
            try:
                if self.compression == "gzip":
                    with gzip.open(raw) as stream:
                        yield cast(BinaryIO, stream)
                elif self.compression == "zstandard":
                    with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
                        yield cast(BinaryIO, stream)
                else:
                    yield raw
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DataError(f"{self.path}: damaged or incomplete ({error})", "Get it again.") from None
            except OSError as error:
                if error.errno is not None:
                    raise
                raise DataError(f"{self.path}: damaged or incomplete ({error})", "Get it again.") from None


def recognise(path: Path, example: str = TRIPLE_EXAMPLE) -> TripleFile:
    """Recognise the format of a file. example: a sample line for the error message.

    Raises:
        DataError: if neither its name nor its first bytes tell.
    """
    with path.open("rb") as stream:
        first = stream.read(len(LFS_POINTER))
    require_utf8_kind(first, str(path))
    compression = "gzip" if first[:2] == GZIP else "zstandard" if first[:4] == ZSTANDARD else ""
    if not compression and path.suffix in COMPRESSIONS:
        raise DataError(f"{path}: not a {COMPRESSIONS[path.suffix]} file", "It may be incomplete: get it again.")
    inner = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    by_ending = ENDINGS.get(inner.suffix.lower())
    if by_ending in ("TSV", "CSV", "Parquet"):
        if by_ending == "Parquet" and compression:
            raise DataError(f"{path}: compressed Parquet files cannot be read", "Uncompress it first.")
        return TripleFile(path, by_ending, compression)
    unnamed = TripleFile(path, "", compression)
    with unnamed.opened() as stream:
        start = stream.read(SNIFFED).removeprefix(BYTE_ORDER_MARK).lstrip()
    if start.startswith(PARQUET) and not compression:
        return TripleFile(path, "Parquet", "")
    if start.startswith(b"["):
        # A list of objects; only JSON Lines could have one list per line.
        return TripleFile(path, "JSON Lines" if by_ending == "JSON Lines" else "JSON", compression)
    if start.startswith(b"{") or by_ending is not None:
        return TripleFile(path, "JSON Lines", compression)
    if b"\t" in start.split(b"\n", 1)[0]:
        return TripleFile(path, "TSV", compression)
    raise DataError(
        f"{path}: neither JSON, JSON Lines, TSV, CSV nor Parquet",
        f"A JSON line looks like {example}; all formats but Parquet may be .gz or .zst.",
    )
