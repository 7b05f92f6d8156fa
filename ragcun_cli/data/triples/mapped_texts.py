"""Texts of an Arrow file, read where it is mapped into memory: its pages come and go, no text is held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa

TEXT = "text"
SCHEMA = pa.schema([(TEXT, pa.string())])
TEXTS_IN_A_BATCH = 65_536


class MappedTexts(Sequence[str]):
    """The column `text` of an Arrow IPC file."""

    def __init__(self, path: Path) -> None:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [file.get_batch(number).column(0) for number in range(file.num_record_batches)]
        self._ends = np.cumsum([len(batch) for batch in self._batches], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

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
        batch = int(np.searchsorted(self._ends, place, side="right"))
        text: str = self._batches[batch][place - (int(self._ends[batch - 1]) if batch else 0)].as_py()
        return text

    def _between(self, start: int, stop: int) -> Iterable[pa.StringArray]:
        begin = 0
        for batch, end in zip(self._batches, self._ends.tolist(), strict=True):
            if begin < stop and start < end:
                yield batch[max(start - begin, 0) : stop - begin]
            begin = end
