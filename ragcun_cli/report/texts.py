"""The texts and rankings behind a result, where they still are."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Container, Iterator
from pathlib import Path

from ragcun_cli.errors import DataError, RagcunError
from ragcun_cli.evaluate.datasets import Dataset, find_datasets
from ragcun_cli.report.collect import DatasetResult


def find_texts(result: DatasetResult, data_dir: Path) -> Dataset | None:
    """The dataset, by its name in the data folder or where it was when it was scored; None if neither has the very
    texts and judgements.
    """
    for name in (result.name, result.found_at):
        try:
            found, _ = find_datasets([name], data_dir, result.split)
        except RagcunError:
            continue
        if found and found[0].sha256 == result.sha256:
            return found[0]
    return None


def run_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Query id and passage id of each line, those of one query best first.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            for line in stream:
                # From both ends: an id may have blanks in it.
                query_id, _, rest = line.partition(" Q0 ")
                yield query_id, rest.rsplit(" ", 3)[0]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})", "Evaluate again.") from None


def read_run(path: Path, queries: Container[str]) -> dict[str, list[str]]:
    """Of some queries: query id -> passages, best first."""
    ranked: dict[str, list[str]] = {}
    for query_id, passage in run_lines(path):
        if query_id in queries:
            ranked.setdefault(query_id, []).append(passage)
    return ranked
