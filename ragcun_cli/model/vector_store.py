"""Vectors of texts on disk, looked up by the texts' content, in shards that are each complete or absent:

    <folder>/<name>/keys.npy      (n, 16) uint8, the texts' content hashes
    <folder>/<name>/vectors.npy   (n, dimensions) float32, memory-mapped
    <folder>/<name>/manifest.json digests of both

A shard is one block of texts that were encoded together. Blocks are cut from the list of missing texts, so that an
interrupted run, when repeated, makes just the blocks that are still missing, with the same texts in each.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragcun_cli import files
from ragcun_cli.arrays import Flags, Numbers, Vectors
from ragcun_cli.console import note
from ragcun_cli.data.cache import only_writer
from ragcun_cli.data.digests import KEY_BYTES, Keys, as_bytes, as_keys
from ragcun_cli.errors import EnvironmentUnfit, ModelError
from ragcun_cli.manifest import problem_with, seal
from ragcun_cli.quantities import shown_bytes

SMALLEST_BLOCK = 512  # texts that are encoded, and written, at a time
FORMAT = 2
VECTORS = "vectors.npy"
SHARD_OVERHEAD = 1024  # bytes of manifest and headers

OnDone = Callable[[int], None] | None
SHOWN_TEXTS = 3
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Encoding:
    """How the vectors of numbered texts are made.

    prepare(numbers): what the encoder takes, read and tokenised while it is busy with the previous block.
    encode(prepared, on_done): (n, dimensions) float32; `on_done(count)` is called as texts finish.
    label(number): how an error names a text.
    """

    prepare: Callable[[Numbers], Any]
    encode: Callable[[Any, OnDone], Vectors]
    label: Callable[[int], str]


class VectorStore:
    """The vectors that one encoder gives for texts."""

    def __init__(
        self, folder: Path, dimensions: int, block_texts: int, make_room: Callable[[int], None] | None = None
    ) -> None:
        """
        block_texts: how many texts are encoded together and make a shard.
        make_room: called with the number of bytes that will be written, before the first.
        """
        self.folder = folder
        self.dimensions = dimensions
        self.block_texts = block_texts
        self._make_room = make_room
        self.shards: list[Path] = []
        self._opened: dict[Path, Vectors] = {}  # shards found intact, memory-mapped
        # Sorted keys of all shards, and for each where its vector is: shard and row.
        self._keys: Keys = np.empty(0, dtype=f"V{KEY_BYTES}")
        self._places: Numbers = np.empty((0, 2), dtype=np.int64)
        self.refresh()

    def refresh(self) -> None:
        """Learn which texts the shards on disk have."""
        found = sorted(self.folder.glob("*/keys.npy")) if self.folder.is_dir() else []
        keys, places = [np.empty(0, dtype=f"V{KEY_BYTES}")], [np.empty((0, 2), dtype=np.int64)]
        self.shards = []
        for path in found:
            if path.parent.name.startswith("."):
                continue  # half-written
            try:
                of_shard = as_keys(np.load(path))
            except (OSError, ValueError, EOFError):
                continue  # damaged or gone; its texts count as missing
            keys.append(of_shard)
            places.append(np.stack([np.full(len(of_shard), len(self.shards)), np.arange(len(of_shard))], axis=1))
            self.shards.append(path.parent)
        self._keys, first = np.unique(np.concatenate(keys), return_index=True)
        self._places = np.concatenate(places)[first]

    def missing(self, keys: Keys) -> Numbers:
        """The first number of each key that no shard has, in the order given."""
        unknown = np.flatnonzero(~self._known(keys))
        _, first = np.unique(keys[unknown], return_index=True)
        return unknown[np.sort(first)]

    def count_kept(self, keys: Keys) -> int:
        """Count how many of these texts the shards have; one that occurs twice counts twice."""
        return int(self._known(keys).sum())

    def _known(self, keys: Keys) -> Flags:
        places = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), dtype=bool)
        inside = places < len(self._keys)
        known[inside] = self._keys[places[inside]] == keys[inside]
        return known

    def missing_blocks(self, keys: Keys) -> list[Numbers]:
        """The missing texts, by number, as the blocks that are encoded together."""
        missing = self.missing(keys)
        return [missing[start : start + self.block_texts] for start in range(0, len(missing), self.block_texts)]

    def bytes_for(self, texts: int) -> int:
        """Return the bytes that the vectors of this many texts take on disk."""
        shards = -(-texts // self.block_texts)
        return texts * (4 * self.dimensions + KEY_BYTES) + shards * SHARD_OVERHEAD

    def places(self, keys: Keys) -> Numbers:
        """Return shard and row of each text, (n, 2); `fill` must have been called with them."""
        return self._places[np.searchsorted(self._keys, keys)]

    def shards_of(self, keys: Keys) -> list[Path]:
        """The shards that have some of the texts."""
        if not len(self._keys):
            return []
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[at] == keys
        return [self.shards[number] for number in np.unique(self._places[at[known], 0]).tolist()]

    def fill(
        self,
        keys: Keys,
        encoding: Encoding,
        on_done: OnDone = None,
        write: Callable[[list[Numbers]], None] | None = None,
    ) -> None:
        """Encode those of the texts that no intact shard has.

        `on_done(count)` is called as texts are done, for found ones at once. `write` makes the blocks' shards elsewhere
        (in other processes) instead of here.

        Raises:
            EnvironmentUnfit: if the disk has no room for them.
            ModelError: if an embedding is not finite, naming texts.
        """
        if not len(self.missing(keys)) and not self._damaged(keys):
            return _call(on_done, len(keys))
        with only_writer(self.folder):
            files.sweep_leftovers(self.folder)
            self.refresh()  # another process may have filled it meanwhile
            for shard in self._damaged(keys):
                shutil.rmtree(shard)
            self.refresh()
            missing = self.missing(keys)
            self.require_room(len(missing))
            _call(on_done, len(keys) - len(missing))
            blocks = self.missing_blocks(keys)
            if write is not None:
                write(blocks)
            else:
                self.write_blocks(blocks, keys, encoding, on_done)
            self.refresh()
            if len(self.missing(keys)) or self._damaged(keys):
                raise EnvironmentUnfit(f"{self.folder}: files written to disk are then damaged", "Check the disk.")
        return None

    def write_blocks(self, blocks: Sequence[Numbers], keys: Keys, encoding: Encoding, on_done: OnDone = None) -> None:
        """Encode blocks of texts (by number) and write a shard for each."""
        for block, prepared in _one_ahead(blocks, encoding.prepare):
            vectors = encoding.encode(prepared, on_done)
            require_finite(vectors, functools.partial(_label_in, encoding, block))
            self._write_shard(keys[block], vectors)

    def take(self, places: Numbers) -> Vectors:
        """The vectors at these places, (n, dimensions)."""
        vectors = np.empty((len(places), self.dimensions), dtype=np.float32)
        for shard in np.unique(places[:, 0]).tolist():
            here = places[:, 0] == shard
            vectors[here] = self._opened[self.shards[shard]][places[here, 1]]
        return vectors

    def require_room(self, texts: int) -> None:
        """Refuse to start if the disk has too little room for the vectors.

        Raises:
            EnvironmentUnfit: if the disk has no room for this many more texts.
        """
        needed = self.bytes_for(texts)
        if self._make_room is not None and needed:
            self._make_room(needed)
        if self.bytes_for(min(texts, SMALLEST_BLOCK)) > files.largest_file():
            raise EnvironmentUnfit(
                f"{self.folder}: a file of stored embeddings would exceed the file-size limit here", "See: ulimit -f"
            )
        free = self.free_bytes()
        if needed > free:
            raise EnvironmentUnfit(
                f"{self.folder}: the vectors of {texts} texts need {shown_bytes(needed)}, {shown_bytes(free)} are free",
                "Free some space, or set RAGCUN_CACHE to a folder on a larger disk.",
            )

    def free_bytes(self) -> int:
        """Return the bytes free on the store's disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free

    def _damaged(self, keys: Keys) -> list[Path]:
        """Return the damaged ones among the shards that have some of the texts.

        Only shards that are needed are read: the store may hold more than fits into memory. Those found intact are
        marked as used now, which decides what a limit on the cache removes first.
        """
        damaged = []
        for shard in self.shards_of(keys):
            if shard in self._opened:
                continue
            problem = problem_with(shard)
            if problem is None:
                vectors = np.load(shard / VECTORS, mmap_mode="r")
                if vectors.shape[1:] == (self.dimensions,):
                    self._opened[shard] = vectors
                    os.utime(shard)
                    continue
                problem = f"its vectors have {vectors.shape[-1]} dimensions, but the model's {self.dimensions}"
            note(f"{shard}: {problem}; its texts will be encoded again.")
            damaged.append(shard)
        return damaged

    def _write_shard(self, keys: Keys, vectors: Vectors) -> None:
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        with files.new_folder(self.folder / name) as temporary:
            np.save(temporary / "keys.npy", as_bytes(keys))
            np.save(temporary / VECTORS, vectors)
            seal(temporary, format=FORMAT, texts=len(keys))


def _label_in(encoding: Encoding, block: Numbers, row: int) -> str:
    return encoding.label(int(block[row]))


def _one_ahead(blocks: Sequence[Numbers], prepare: Callable[[Numbers], Any]) -> Iterator[tuple[Numbers, Any]]:
    """Yield each block with what `prepare` makes of it, while the next block is being prepared."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        upcoming: Future[Any] | None = None
        for place, block in enumerate(blocks):
            ready = upcoming or thread.submit(prepare, block)
            upcoming = thread.submit(prepare, blocks[place + 1]) if place + 1 < len(blocks) else None
            yield block, ready.result()


def _call(on_done: OnDone, count: int) -> None:
    if on_done is not None and count:
        on_done(count)


def require_finite(embeddings: Vectors, label: Callable[[int], str]) -> None:
    """Require that embeddings (n, D) are finite. label(row): how an error names a row's text.

    Raises:
        ModelError: naming texts whose embedding is not finite.
    """
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if not len(broken):
        return
    named = ", ".join(label(row) for row in broken[:SHOWN_TEXTS].tolist())
    raise ModelError(
        f"the model's embedding is not finite for {len(broken)} of {len(embeddings)} texts, such as {named}",
        "Its training diverged (see its run's metrics.jsonl), half precision overflowed, or a weight is not a number.",
    )


def shown(text: str) -> str:
    """Return a text as an error shows it if it has no id."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")
