"""Process blocks of whole lines in several threads and return the results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from ragcun_cli.data.lines import require_line_ends, require_utf8_kind
from ragcun_cli.data.triples.formats import BYTE_ORDER_MARK
from ragcun_cli.errors import DataError

BLOCK_BYTES = 8 << 20  # fastest between 1 and 32 MB; two blocks in flight per core stay below 100 MB
LONGEST_LINE = 64 << 20  # bytes; a file without line ends would otherwise be read into memory completely

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Lines:
    """Whole lines of a file, starting at line `first` (from 1). ends: number of line ends."""

    first: int
    content: bytes
    ends: int

    @classmethod
    def of(cls, first: int, content: bytes) -> Lines:
        """Count the line ends once, where the file is split, because counting takes a twentieth of the reading time."""
        return cls(first, content, content.count(b"\n"))


def blocks_of_lines(stream: BinaryIO, name: str) -> Iterator[Lines]:
    """Split the file into blocks at line ends, without a byte order mark."""
    first, rest, fresh = 1, b"", True
    while block := stream.read(BLOCK_BYTES):
        if fresh:
            require_utf8_kind(block, name)
            if b"\n" not in block:
                require_line_ends(block, name)
            block, fresh = block.removeprefix(BYTE_ORDER_MARK), False
        cut = block.rfind(b"\n") + 1
        if not cut:
            rest += block
            if len(rest) > LONGEST_LINE:
                raise DataError(f"{name}:{first}: line is longer than {LONGEST_LINE >> 20} MiB")
            continue
        whole = Lines.of(first, rest + block[:cut])
        yield whole
        first += whole.ends
        rest = block[cut:]
    if rest:
        yield Lines.of(first, rest)


def in_order(work: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
    """Call `work` on each item, with one thread per core, and yield the answers in the items' order.

    Only a few items are read ahead, because all blocks at once would put the whole file into memory.
    """
    cores = os.cpu_count() or 1
    waiting: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
