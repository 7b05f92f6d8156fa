"""Read the passages of a `corpus.jsonl` from disk by line offset, without holding them in memory.

BEIR's loader holds one dictionary per passage, 762 bytes each (6.7 GB for MS MARCO). Here one pass makes an index,
which is kept in the cache and memory-mapped, so that its pages are loaded only as needed:

    offsets.npy   (m,) int64, where the line of each passage begins
    ids.npy       all ids concatenated, UTF-8; id_ends.npy (m,) int64, where each ends
    keys.npy      (m, 16) uint8, the text's content hash: equal texts are encoded only once, even across corpora

Rows are in the order of ids, so that breaking ties by row means breaking them by id.
"""

from __future__ import annotations

import array
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragcun_cli import files
from ragcun_cli.arrays import Numbers
from ragcun_cli.data.cache import only_writer
from ragcun_cli.data.digests import KEY_BYTES, Keys, as_keys, keys_of
from ragcun_cli.data.lines import parse_json_line, text_of
from ragcun_cli.errors import DataError
from ragcun_cli.manifest import problem_with, read_manifest, seal

FORMAT = 1
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLANKS = frozenset(" \t\n\r\v\f\0")  # characters that end a column in a run file; other Unicode spaces do not
SORTED_AS_ARRAY = 1 << 30  # bytes: ids are sorted as an array if they fit when padded to the longest


@dataclass(frozen=True)
class CorpusFacts:
    """Facts about a corpus that a reader should know before trusting a score on it.

    duplicate_ids: lines whose id occurs again later; the later line counts, as in BEIR's loader. first_duplicate: the
    first such id and line.
    """

    sha256: str
    empty_passages: int
    duplicate_ids: int
    first_duplicate: str | None


class Corpus:
    """A corpus of m passages, numbered in the order of their ids."""

    def __init__(self, path: Path, index: Path, label: str) -> None:
        """Open a corpus. `path`: the corpus.jsonl; `index`: the folder of its index; `label`: its name in errors."""
        self.path = path
        self.index = index
        self.label = label
        self._offsets: Numbers = np.load(index / "offsets.npy", mmap_mode="r")
        self._ids = np.load(index / "ids.npy", mmap_mode="r")
        self._id_ends = np.load(index / "id_ends.npy", mmap_mode="r")
        self.keys: Keys = as_keys(np.load(index / "keys.npy", mmap_mode="r"))
        self.facts = CorpusFacts(**read_manifest(index)["facts"])

    def __len__(self) -> int:
        return len(self._offsets)

    def id_of(self, row: int) -> str:
        """Return the id of a passage."""
        start = int(self._id_ends[row - 1]) if row else 0
        return bytes(self._ids[start : int(self._id_ends[row])]).decode("utf-8")

    def ids(self, rows: Sequence[int] | Numbers) -> list[str]:
        """Return the ids of passages."""
        return [self.id_of(int(row)) for row in rows]

    def row_of(self, identity: str) -> int | None:
        """Return the row of the passage with this id, or None."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.id_of(middle).encode() < identity.encode():
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self.id_of(low) == identity else None

    def texts(self, rows: Numbers | None = None, titles: bool = True) -> list[str]:
        """Return `(title + " " + text).strip()` of these passages, or of all; without titles, only the text."""
        rows = np.arange(len(self)) if rows is None else rows
        texts = [""] * len(rows)
        offsets = self._offsets[rows]
        with self.path.open("rb") as stream:
            for place in np.argsort(offsets).tolist():  # forward through the file
                stream.seek(int(offsets[place]))
                try:
                    record = json.loads(stream.readline())
                    texts[place] = passage_text(record if titles else {**record, "title": ""}, self.label)
                except ValueError:
                    raise DataError(f"{self.label}: changed while it was being read", "Run it again.") from None
        return texts

    def rows_in_file_order(self) -> Numbers:
        """Return all rows in file order, for reading from front to back."""
        return np.argsort(self._offsets)


def open_corpus(path: Path, cache: Path, label: str | None = None) -> Corpus:
    """Index a corpus.jsonl, or reuse its index from the cache if the content is unchanged.

    Raises:
        DataError: naming the file and line of a problem.
    """
    label = label or str(path)
    sha256 = files.sha256_of_file(path)
    index = cache / "corpora" / f"{sha256[:32]}-{FORMAT}"
    if problem_with(index) is not None:
        with only_writer(index):
            files.sweep_leftovers(index.parent, index.name)
            if problem_with(index) is not None:
                _write_index(path, sha256, index, label)
    return Corpus(path, index, label)


def passage_text(record: dict[str, Any], place: str) -> str:
    """Build a passage by BEIR's rule. Empty texts are allowed (FiQA has 38); a missing key is an error."""
    if "text" not in record:
        raise DataError(f"{place}: 'text' is missing", 'A line is {"_id": "d1", "title": "", "text": "..."}.')
    title, text = (text_of(record, key, place, required=False, strip=False) for key in ("title", "text"))
    return f"{title} {text}".strip()


def identity_of(record: dict[str, Any], place: str) -> str:
    """Return the id of a record.

    Raises:
        DataError: if it has no id, or one with whitespace.
    """
    identity = text_of(record, "_id", place, strip=False)
    if any(character in BLANKS for character in identity):
        raise DataError(
            f"{place}: the id {identity!r} contains whitespace, which TREC's formats do not allow",
            "Change it, also in the qrels.",
        )
    return identity


def _write_index(path: Path, sha256: str, index: Path, label: str) -> None:
    ids, keys = bytearray(), bytearray()
    ends, offsets, numbers = array.array("q"), array.array("q"), array.array("q")
    empty = 0
    for number, offset, line in _lines_with_offsets(path):
        place = f"{label}:{number}"
        record = parse_json_line(line, place)
        ids += identity_of(record, place).encode()
        text = passage_text(record, place)
        keys += keys_of([text]).tobytes()
        empty += not text
        for column, value in ((ends, len(ids)), (offsets, offset), (numbers, number)):
            column.append(value)
    if not ids:
        raise DataError(f"{label}: the file has no records", 'A line is {"_id": "d1", "title": "", "text": "..."}.')
    stops = np.frombuffer(ends, dtype=np.int64)
    order = _sorted_by_id(bytes(ids), stops)
    starts = stops - np.diff(stops, prepend=0)
    lengths = (stops - starts)[order]
    # For equal ids the later line counts; the sort is stable, so it comes last.
    alike = np.flatnonzero(lengths[1:] == lengths[:-1])
    repeated = [
        int(order[place])
        for place in alike.tolist()
        if ids[starts[order[place]] : stops[order[place]]] == ids[starts[order[place + 1]] : stops[order[place + 1]]]
    ]
    first = min(repeated, default=None)
    kept = order[~np.isin(order, repeated)]
    facts = {
        "sha256": sha256,
        "empty_passages": empty,
        "duplicate_ids": len(repeated),
        "first_duplicate": None
        if first is None
        else f"{ids[starts[first] : stops[first]].decode()!r} on line {numbers[first]}",
    }
    joined = b"".join(ids[start:stop] for start, stop in zip(starts[kept].tolist(), stops[kept].tolist(), strict=True))
    with files.new_folder(index) as temporary:
        np.save(temporary / "offsets.npy", np.frombuffer(offsets, dtype=np.int64)[kept])
        np.save(temporary / "keys.npy", np.frombuffer(keys, dtype=np.uint8).reshape(-1, KEY_BYTES)[kept])
        np.save(temporary / "ids.npy", np.frombuffer(joined, dtype=np.uint8))
        np.save(temporary / "id_ends.npy", np.cumsum((stops - starts)[kept]))
        seal(temporary, format=FORMAT, facts=facts)


def _sorted_by_id(ids: bytes, stops: Numbers) -> Numbers:
    """Return line numbers in a stable order of ids (UTF-8 bytes sort like their characters)."""
    bounds = zip([0, *stops[:-1].tolist()], stops.tolist(), strict=True)
    longest = int(np.diff(stops, prepend=0).max())
    if longest * len(stops) > SORTED_AS_ARRAY:
        separate = [ids[start:stop] for start, stop in bounds]
        return np.array(sorted(range(len(separate)), key=separate.__getitem__), dtype=np.int64)
    table = np.fromiter((ids[start:stop] for start, stop in bounds), dtype=f"S{longest}", count=len(stops))
    return np.argsort(table, kind="stable")


def _lines_with_offsets(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield (line number from 1, offset, line) for non-blank lines, without a byte order mark."""
    offset = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            skipped = len(BYTE_ORDER_MARK) if number == 1 and line.startswith(BYTE_ORDER_MARK) else 0
            if line.strip():
                yield number, offset + skipped, line[skipped:]
            offset += len(line)
