"""Find equal texts among many by sorting them into parts on disk, with only one part in memory at a time.

Equal texts have the same length, so the part is chosen by the remainder of a text's length, and each part can
be searched separately.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.triples.blocks import in_order
from ragcun_cli.data.triples.rows import RowBlock, negative_counts

TEXT = "text"
SCHEMA = pa.schema([(TEXT, pa.string())])
TEXTS_IN_A_BATCH = 65_536
SPOOLED = pa.schema([("text", pa.string()), ("place", pa.int64())])


class MappedTexts(Sequence[str]):
    """The column `text` of an Arrow IPC file.

    Single texts are read from Arrow's own buffers (offsets and concatenated bytes), because an Arrow scalar
    takes four times as long and an epoch reads millions.
    """

    def __init__(self, path: Path) -> None:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [file.get_batch(number).column(0) for number in range(file.num_record_batches)]
        self._ends = list(itertools.accumulate(map(len, self._batches)))
        self._offsets = [memoryview(each.buffers()[1]).cast("B").cast("i")[each.offset :] for each in self._batches]
        self._bytes = [memoryview(each.buffers()[2]) for each in self._batches]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step != 1:
                return [self[each] for each in range(start, stop, step)]
            return [text for batch in self._between(start, stop) for text in batch.to_pylist()]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        batch = bisect.bisect_right(self._ends, place)
        place -= self._ends[batch - 1] if batch else 0
        offsets = self._offsets[batch]
        return str(self._bytes[batch][offsets[place] : offsets[place + 1]], "utf-8")

    def _between(self, start: int, stop: int) -> Iterable[pa.StringArray]:
        begin = 0
        for batch, end in zip(self._batches, self._ends, strict=True):
            if begin < stop and start < end:
                yield batch[max(start - begin, 0) : stop - begin]
            begin = end


@dataclass(frozen=True)
class _SplitBlock:
    """A block's texts (queries, positives, negatives) by part. order: original positions; cuts: part boundaries."""

    rows: int
    negative_counts: Numbers
    by_part: pa.StringArray
    order: Numbers
    cuts: list[int]


class TextSorter:
    """Sorts the texts of row blocks into parts; each text gets a place, numbered in order of arrival."""

    def __init__(self, folder: Path, parts: int) -> None:
        self.rows = self.texts = self.negatives = 0
        self._parts = parts
        self._paths = [folder / f"part-{number}" for number in range(parts)]
        self._writers = [pa.ipc.new_stream(str(path), SPOOLED) for path in self._paths]
        self._places: list[tuple[Numbers, Numbers, Numbers]] = []
        self._counts: list[Numbers] = []

    def __enter__(self) -> TextSorter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers:
            writer.close()

    def add_all(self, blocks: Iterable[RowBlock]) -> None:
        """Add all rows of these blocks."""
        for block in in_order(self._split, blocks):
            self._counts.append(block.negative_counts)
            sizes = [block.rows, block.rows, len(block.order) - 2 * block.rows]
            roles = np.split(np.arange(self.texts, self.texts + len(block.order), dtype=np.int64), np.cumsum(sizes)[:2])
            self._places.append((roles[0], roles[1], roles[2]))
            for part, writer in enumerate(self._writers):
                start, stop = block.cuts[part], block.cuts[part + 1]
                if start < stop:
                    there = pa.array(block.order[start:stop] + self.texts)
                    writer.write_batch(pa.record_batch([block.by_part[start:stop], there], schema=SPOOLED))
            self.texts += len(block.order)
            self.rows += block.rows
            self.negatives += sizes[2]

    def _split(self, block: RowBlock) -> _SplitBlock:
        texts = pa.concat_arrays([block.queries, block.positives, block.negatives.flatten()])
        part_of = pc.binary_length(texts).to_numpy(zero_copy_only=False) % self._parts
        order = np.argsort(part_of, kind="stable")
        cuts = np.searchsorted(part_of[order], np.arange(self._parts + 1)).tolist()
        return _SplitBlock(len(block), negative_counts(block), texts.take(pa.array(order)), order, cuts)

    def numbered(self, target: Path) -> dict[str, Numbers]:
        """Write the distinct texts to an Arrow file and return `TripleTable`'s columns of text numbers.

        Call this after the `with` block.
        """
        number_of = np.empty(self.texts, dtype=np.int64)  # by place
        first = 0
        with pa.ipc.new_file(str(target), SCHEMA) as file:
            for distinct, places, indices in in_order(_distinct, self._paths):
                number_of[places] = indices + first
                first += len(distinct)
                table = pa.Table.from_arrays([distinct], schema=SCHEMA)
                file.write_table(table, max_chunksize=TEXTS_IN_A_BATCH)
        columns = [np.concatenate([each[role] for each in self._places]) for role in range(3)]
        queries, positives, negatives = (number_of[places] for places in columns)
        ends = np.cumsum(np.concatenate(self._counts))
        return {"queries": queries, "positives": positives, "negatives": negatives, "negative_ends": ends}


def _distinct(path: Path) -> tuple[pa.StringArray, Numbers, Numbers]:
    """Return a part's distinct texts, the places of all its texts, and the index of each into the distinct ones."""
    with pa.ipc.open_stream(pa.memory_map(str(path))) as stream:
        table = stream.read_all()
    path.unlink()
    if not table.num_rows:
        return pa.array([], pa.string()), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    encoded = table.column(0).combine_chunks().dictionary_encode()
    places: Numbers = table.column(1).to_numpy()
    return encoded.dictionary, places, encoded.indices.to_numpy().astype(np.int64)
