"""Texts of an Arrow file, read where it is mapped into memory: its pages come and go, no text is held."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import pyarrow as pa

TEXT = "text"
SCHEMA = pa.schema([(TEXT, pa.string())])
TEXTS_IN_A_BATCH = 65_536


class MappedTexts(Sequence[str]):
    """The column `text` of an Arrow IPC file.

    Single texts are read from Arrow's own buffers (offsets, and all bytes one after the other): a scalar of Arrow's
    takes four times as long, and an epoch reads millions.
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
