"""The passages' embeddings as the search reads them: from shards on disk, front to back, a block at a time."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ragcun_cli.arrays import Figures, Numbers, Vectors

RowMap = Callable[[Tensor], Tensor]

SCAN_BLOCK = 16_384  # vectors at a time where no memory budget says otherwise


@dataclass(frozen=True)
class PassageVectors:
    """The embeddings of m passages, numbered 0 .. m - 1 by where they are stored ("places"), not by passage.

    shards: `.npy` files (n, D) float32, or arrays. shard_of, position: (m,), where each vector is, ascending; a
    vector may stand for several passages with the same text. rows: (m,), which passage it is; rows follow the order
    of ids. row_map: applied to each vector as it is read; its result for one vector must not depend on the others.
    """

    shards: Sequence[Path | Vectors]
    dimensions: int
    shard_of: npt.NDArray[np.int32]
    position: Numbers
    rows: Numbers
    row_map: RowMap | None = None

    @classmethod
    def of_array(cls, vectors: Vectors) -> PassageVectors:
        """Take an array, whose row i is passage i."""
        numbers = np.arange(len(vectors))
        return cls([vectors], vectors.shape[1], np.zeros(len(vectors), dtype=np.int32), numbers, numbers)

    @classmethod
    def of_places(cls, shards: Sequence[Path], dimensions: int, places: Numbers) -> PassageVectors:
        """Take vectors from shards. places: (m, 2), shard and position of each passage's vector."""
        order = np.lexsort((places[:, 1], places[:, 0]))
        return cls(shards, dimensions, places[order, 0].astype(np.int32), places[order, 1], order)

    def __len__(self) -> int:
        return len(self.rows)

    def mapped(self, row_map: RowMap) -> PassageVectors:
        """Return the same vectors, seen through one more map."""
        return dataclasses.replace(self, row_map=row_map if self.row_map is None else _Then(self.row_map, row_map))

    def part(self, start: int, stop: int) -> PassageVectors:
        """Return the vectors at places start .. stop - 1."""
        return dataclasses.replace(
            self,
            shard_of=self.shard_of[start:stop],
            position=self.position[start:stop],
            rows=self.rows[start:stop],
        )

    def blocks(self, size: int = SCAN_BLOCK) -> Iterator[tuple[int, Tensor]]:
        """Yield (first place, vectors) of consecutive places, at most `size` at a time.

        The vectors share one buffer that each block overwrites: fresh memory for each costs as much as reading it.
        """
        buffer = torch.empty(min(size, len(self)), self.dimensions)
        for start in range(0, len(self), size):
            places = np.arange(start, min(start + size, len(self)))
            yield start, self.take(places, buffer[: len(places)])

    def take(self, places: Numbers, out: Tensor | None = None) -> Tensor:
        """Return the vectors at these places, ascending, (n, D). A shard is mapped only while it is read."""
        out = torch.empty(len(places), self.dimensions) if out is None else out
        shard_of, position = self.shard_of[places], self.position[places]
        cuts = [0, *(np.flatnonzero(np.diff(shard_of)) + 1).tolist(), len(places)]
        for start, stop in itertools.pairwise(cuts):
            if start < stop:
                _read(self.shards[shard_of[start]], position[start:stop], out[start:stop])
        return out if self.row_map is None else self.row_map(out)

    def of_passages(self, rows: Numbers) -> Vectors:
        """Return the vectors of these passages, in the order given."""
        place_of = np.empty(len(self), dtype=np.int64)
        place_of[self.rows] = np.arange(len(self))
        places, back = np.unique(place_of[rows], return_inverse=True)
        return self.take(places).numpy()[back]

    def mean(self) -> Figures:
        """Return the mean vector, (D,)."""
        total = sum(block.sum(dim=0).double() for _, block in self.blocks())
        return np.asarray(total) / len(self)


@dataclass(frozen=True)
class _Then:
    """Two maps, one after the other; a class, so that it can be sent to other processes."""

    first: RowMap
    second: RowMap

    def __call__(self, vectors: Tensor) -> Tensor:
        return self.second(self.first(vectors))


def _read(source: Path | Vectors, wanted: Numbers, out: Tensor) -> None:
    # "c": torch warns about read-only memory; nothing is written.
    vectors = torch.from_numpy(np.load(source, mmap_mode="c") if isinstance(source, Path) else source)
    first, last = int(wanted[0]), int(wanted[-1])
    # The same vector may be wanted twice, so the length alone does not say that they are consecutive.
    if last - first + 1 == len(wanted) and bool((np.diff(wanted) == 1).all()):
        out.copy_(vectors[first : last + 1])
    else:
        torch.index_select(vectors, 0, torch.from_numpy(wanted), out=out)
