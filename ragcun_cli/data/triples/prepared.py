"""Prepare training data once, in the cache; after that it opens almost instantly.

    <cache>/triples/<key>/texts.arrow        the distinct texts, memory-mapped
                          queries.npy, positives.npy, negatives.npy, negative_ends.npy   (see `TripleTable`)
                          manifest.json      sizes and times of these files, what was read, and which rows were broken

The key covers the file's content and format. Equal texts are found in parts, each with texts whose length has the
same remainder, so that only as many parts as there are cores are in memory at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragcun_cli import files
from ragcun_cli.console import note
from ragcun_cli.data.cache import cache_folder, key_of, only_writer, scratch_folder
from ragcun_cli.data.collection import Collection, read_collection
from ragcun_cli.data.digests import sha256_of
from ragcun_cli.data.lines import NOT_UTF8
from ragcun_cli.data.naming import is_zip
from ragcun_cli.data.qrels import qrels_lines
from ragcun_cli.data.triples.columns import NAMES_EXPECTED, Columns
from ragcun_cli.data.triples.distinct import MappedTexts, TextSorter
from ragcun_cli.data.triples.formats import TripleFile, recognise
from ragcun_cli.data.triples.reading_delimited import read_csv, read_tsv
from ragcun_cli.data.triples.reading_json import read_json_lines, read_json_list
from ragcun_cli.data.triples.reading_parquet import read_parquet
from ragcun_cli.data.triples.rows import BrokenRows, RowBlock, block_of_texts
from ragcun_cli.data.triples.table import TripleTable
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.manifest import MANIFEST, read_manifest
from ragcun_cli.quantities import shown_bytes

FORMAT = 2
ENCODE = "Save the file as UTF-8: iconv -f LATIN1 -t UTF-8 FILE > NEW"
TRAIN_SPLIT = "train"  # split of a collection's judgements
COLUMNS = ("queries", "positives", "negatives", "negative_ends")
LINE_READERS = {"JSON Lines": read_json_lines, "JSON": read_json_list, "TSV": read_tsv, "CSV": read_csv}
PART_BYTES = 64 << 20  # of the file, in each part that is searched for equal texts
WORTH_A_WORD = 256 << 20  # bytes: a few seconds
FEWEST_PARTS, MOST_PARTS = 16, 256


_Read = Callable[[], contextlib.AbstractContextManager[tuple[Columns, Iterator[RowBlock]]]]
ROWS_AT_A_TIME = 20_000


@dataclass(frozen=True)
class _Source:
    """A source of triples. label: its name in errors; described: format; sha256: of its content; bytes: size."""

    path: Path
    label: str
    described: str
    sha256: str
    bytes: int


def open_triples(path: Path, max_bad_rows: int | None = 0) -> tuple[TripleTable, str]:
    """Open the training data in a file or a collection's train split. Return them and the source's sha256.

    Prints a line that says what was found. max_bad_rows: None for no limit.

    Raises:
        UsageError: if there is no such file or folder.
        DataError: naming file and line of broken rows if there are more than `max_bad_rows`, or if there are no rows.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file", "Name your training triples with --set data.train=FILE.")
    cache = cache_folder()
    source, read = _source(path, cache)
    folder = cache / "triples" / key_of(format=FORMAT, sha256=source.sha256, kind=source.described)
    if not _is_whole(folder):
        with only_writer(folder):
            if not _is_whole(folder):
                files.sweep_leftovers(folder.parent, folder.name)
                _prepare(source, read, folder, cache, max_bad_rows)
    manifest = read_manifest(folder)
    # The same content may have been prepared from a file with a different name.
    first = [each.replace(manifest["label"], source.label, 1) for each in manifest["first_broken"]]
    if max_bad_rows is not None and manifest["broken"] > max_bad_rows:
        raise _too_many(BrokenRows(manifest["broken"], first))
    table = _opened(folder, manifest, tuple(first))
    note(f"{path}: {described(source.described, manifest, table)}")
    return table, source.sha256


def described(kind: str, manifest: dict[str, Any], table: TripleTable) -> str:
    """Describe format, columns and counts in one line."""
    shown = f"{kind} with {manifest['columns']}; {len(table)} triples, {len(table.texts)} distinct texts"
    if lacking := len(table) - table.with_negative:
        shown += ", no hard negatives" if lacking == len(table) else f", {lacking} without a hard negative"
    if table.left_out:
        shown += f"; {table.left_out} broken rows left out, the first: {table.first_left_out[0]}"
    return shown + "."


def _source(path: Path, cache: Path) -> tuple[_Source, _Read]:
    """Return the source and the function that reads it."""
    if path.is_dir() or is_zip(path):
        collection = read_collection(path, TRAIN_SPLIT)
        size = collection.corpus.path.stat().st_size

        @contextlib.contextmanager
        def pairs() -> Iterator[tuple[Columns, Iterator[RowBlock]]]:
            yield read_pairs(collection)

        return _Source(path, str(path), "collection, qrels/train.tsv", collection.sha256, size), pairs
    file = recognise(path)
    return _Source(path, str(path), file.described, sha256_of(path, cache), path.stat().st_size), lambda: _rows_of(file)


@contextlib.contextmanager
def _rows_of(file: TripleFile) -> Iterator[tuple[Columns, Iterator[RowBlock]]]:
    if file.format == "Parquet":
        yield read_parquet(file.path)
        return
    with file.opened() as stream:
        yield LINE_READERS[file.format](stream, str(file.path))


def _is_whole(folder: Path) -> bool:
    """Check files by size and time, as git's index does; comparing digests of 350 MB would take 0.2 s."""
    try:
        manifest = read_manifest(folder)
        return all(
            _state(folder / name) == (each["bytes"], each["modified"]) for name, each in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _opened(folder: Path, manifest: dict[str, Any], first: tuple[str, ...]) -> TripleTable:
    columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS}
    texts = MappedTexts(folder / "texts.arrow")
    # The folder's name identifies the content of the source and how it was read.
    return TripleTable(texts, folder.name, left_out=manifest["broken"], first_left_out=first, **columns)


def _prepare(source: _Source, read: _Read, folder: Path, cache: Path, max_bad_rows: int | None) -> None:
    parts = min(MOST_PARTS, max(FEWEST_PARTS, source.bytes // PART_BYTES))
    broken, before = BrokenRows(), _state(source.path)
    if source.bytes > WORTH_A_WORD:
        note(f"{source.label}: preparing {shown_bytes(source.bytes)} of {source.described} (only once) ...")
    with scratch_folder(cache) as scratch, files.new_folder(folder) as temporary:
        with TextSorter(scratch, parts) as sorter, read() as (columns, blocks):
            sorter.add_all(broken.seen(blocks))
        if broken.count and not sorter.rows:
            cure = ENCODE if NOT_UTF8 in broken.listed() else NAMES_EXPECTED
            raise DataError(broken.listed(), f"All {broken.count} rows are broken. {cure}")
        if max_bad_rows is not None and broken.count > max_bad_rows:
            raise _too_many(broken)
        if not sorter.rows:
            raise DataError(f"{source.label}: contains no triples", NAMES_EXPECTED)
        for name, column in sorter.numbered(temporary / "texts.arrow").items():
            np.save(temporary / f"{name}.npy", column)
        if source.path.is_file() and _state(source.path) != before:
            raise DataError(f"{source.label}: changed while it was being read", "Run it again.")
        states = {path.name: _state(path) for path in temporary.iterdir()}
        content = {
            "format": FORMAT,
            "label": source.label,
            "columns": columns.described(negatives_in_some=sorter.negatives > 0),
            "rows": sorter.rows,
            "broken": broken.count,
            "first_broken": broken.first,
            "files": {name: {"bytes": size, "modified": modified} for name, (size, modified) in states.items()},
        }
        files.write_json(temporary / MANIFEST, content)


def _too_many(broken: BrokenRows) -> DataError:
    cure = ENCODE if NOT_UTF8 in broken.listed() else "Fix or remove them."
    return DataError(
        broken.listed(), f"{broken.count} broken rows. {cure} Or skip them: --max-bad-rows {broken.count}."
    )


def read_pairs(collection: Collection) -> tuple[Columns, Iterator[RowBlock]]:
    """Read queries and their relevant passages; `ragcun data mine` finds hard negatives."""
    return Columns("query", "positive", ()), _blocks(collection)


def _blocks(collection: Collection) -> Iterator[RowBlock]:
    queries = dict(zip(collection.query_ids, collection.queries, strict=True))
    pairs: list[tuple[int, str, int]] = []
    broken: list[str] = []
    for number, query_id, passage_id, grade in qrels_lines(collection.qrels_path, collection.qrels_label):
        if grade <= 0:
            continue
        row = collection.corpus.row_of(passage_id)
        if row is None:
            broken.append(f"{collection.qrels_label}:{number}: passage {passage_id!r} is not in the corpus")
            continue
        pairs.append((number, queries[query_id], row))
        if len(pairs) == ROWS_AT_A_TIME:
            yield _block(collection, pairs, broken)
            pairs, broken = [], []
    yield _block(collection, pairs, broken)


def _block(collection: Collection, pairs: list[tuple[int, str, int]], broken: list[str]) -> RowBlock:
    passages = collection.corpus.texts(np.array([row for _, _, row in pairs], dtype=np.int64))
    return block_of_texts(
        [query for _, query, _ in pairs],
        passages,
        [[] for _ in pairs],
        lambda row: f"{collection.qrels_label}:{pairs[row][0]}",
        broken,
    )
