"""Blocks of whole lines, worked on by several threads and given back in order."""

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

BLOCK_BYTES = 8 << 20  # the fastest of 1 to 32 MB, and two blocks a core in flight stay below 100 MB
LONGEST_LINE = 64 << 20  # bytes: a file without line ends is no file of rows, and would be read into memory whole

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Lines:
    """Whole lines of a file, the first of them being line `first` (from 1); ends: how many of them end in it."""

    first: int
    content: bytes
    ends: int

    @classmethod
    def of(cls, first: int, content: bytes) -> Lines:
        """Counted once, by whoever cuts the file: counting takes a twentieth of all the reading."""
        return cls(first, content, content.count(b"\n"))


def blocks_of_lines(stream: BinaryIO, name: str) -> Iterator[Lines]:
    """The file in blocks that end where a line ends; a byte order mark is no part of the first line."""
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
                raise DataError(f"{name}:{first}: this line is longer than {LONGEST_LINE >> 20} MiB")
            continue
        whole = Lines.of(first, rest + block[:cut])
        yield whole
        first += whole.ends
        rest = block[cut:]
    if rest:
        yield Lines.of(first, rest)


def in_order(work: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
    """`work` on each item in as many threads as there are cores, the answers in the items' order.

    Only a few items are taken ahead: all of a file's blocks at once would be the file in memory.
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
