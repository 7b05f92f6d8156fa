"""<dataset>.run.gz: rankings in TREC's format, from which trec_eval finds the same order and the same figures."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.errors import DataError

COMPRESSION = 3  # a run of MS MARCO's dev set has seven million lines

Ranked = tuple[str, Sequence[str], Sequence[int]]  # query id; passage ids, best first; their scores, falling


def write_run(path: Path, ranked: Iterable[Ranked], tag: str) -> None:
    """Write rankings. Scores are integers, equal for equally distant passages: trec_eval's float32 holds them exactly,
    but would mix up close distances.
    """
    tag = _one_word(tag)
    with _replacing(path) as stream:
        for query_id, passages, scores in ranked:
            lines = enumerate(zip(passages, scores, strict=True), start=1)
            stream.write(
                "".join(f"{query_id} Q0 {passage} {rank} {score} {tag}\n" for rank, (passage, score) in lines).encode()
            )


def rename_run(path: Path, tag: str) -> None:
    """Put another name into the last column."""
    ending = f" {_one_word(tag)}\n".encode()
    with gzip.open(path, "rb") as source, _replacing(path) as sink:
        for line in source:
            sink.write(line.rsplit(b" ", 1)[0] + ending)


def run_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield query id and passage id of each line, best first within a query.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            for line in stream:
                # Parsed from both ends: an id may contain spaces.
                query_id, _, rest = line.partition(" Q0 ")
                yield query_id, rest.rsplit(" ", 3)[0]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})", "Evaluate again.") from None


def read_run(path: Path, queries: Container[str]) -> dict[str, list[str]]:
    """Read the rankings of some queries: query id -> passages, best first."""
    ranked: dict[str, list[str]] = {}
    for query_id, passage in run_lines(path):
        if query_id in queries:
            ranked.setdefault(query_id, []).append(passage)
    return ranked


@contextmanager
def _replacing(path: Path) -> Iterator[gzip.GzipFile]:
    with (
        files.replacing(path) as temporary,
        temporary.open("wb") as raw,
        # No timestamp: the same results give the same bytes.
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=COMPRESSION, mtime=0, filename="") as stream,
    ):
        yield stream


def _one_word(tag: str) -> str:
    return "_".join(tag.split())  # the format's columns are separated by spaces
