"""Blocks of training rows in columns, and the broken rows that cannot be used.

A row is a query, a passage that answers it, and any number of hard negatives that do not. Blocks prevent 500,000 rows
from becoming 1,500,000 Python objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ragcun_cli.arrays import Flags, Numbers
from ragcun_cli.data.lines import SHOWN_PROBLEMS

NUMBER = re.compile(r"(?::|row |line:)(\d+): ")


@dataclass(frozen=True)
class RowBlock:
    """A block of n rows. queries, positives: (n,) texts; negatives: (n,) lists. broken: what was left out and why."""

    queries: pa.StringArray
    positives: pa.StringArray
    negatives: pa.ListArray
    broken: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.queries)


@dataclass
class BrokenRows:
    """Number of broken rows, and the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, messages: Sequence[str]) -> None:
        """Count these messages, each `file:line: what is wrong`."""
        self.count += len(messages)
        self.first += messages[: SHOWN_PROBLEMS - len(self.first)]

    def seen(self, blocks: Iterable[RowBlock]) -> Iterator[RowBlock]:
        """Yield the blocks unchanged and count their broken rows."""
        for block in blocks:
            self.add(block.broken)
            yield block

    def listed(self) -> str:
        """List the first of them, one per line, and how many more there are."""
        more = self.count - len(self.first)
        return "\n".join([*self.first, *([f"... and {more} more"] if more else [])])


def block_of_texts(
    queries: Sequence[str],
    positives: Sequence[str],
    negatives: Sequence[Sequence[str]],
    place_of: Callable[[int], str],
    broken: list[str],
) -> RowBlock:
    """Make a block from Python texts. `place_of(row)` names a row; `broken`: rows already left out."""
    return clean(
        RowBlock(
            pa.array(queries, pa.string()), pa.array(positives, pa.string()), pa.array(negatives, pa.list_(pa.string()))
        ),
        place_of,
        broken,
    )


def clean(block: RowBlock, place_of: Callable[[int], str], broken: Sequence[str] = ()) -> RowBlock:
    """Strip whitespace around the block's texts, and drop rows that lack a text.

    queries and positives may be null, which also counts as missing; `place_of(row)` names a row.
    """
    queries, positives = trimmed(block.queries), trimmed(block.positives)
    negatives = pa.ListArray.from_arrays(block.negatives.offsets, trimmed(block.negatives.values))
    no_query, no_positive = _lacks_text(queries), _lacks_text(positives)
    owners = np.repeat(np.arange(len(block)), np.diff(_offsets(negatives)))
    no_negative = np.zeros(len(block), dtype=bool)
    no_negative[owners[_lacks_text(negatives.flatten())]] = True
    faults = no_query | no_positive | no_negative
    if not faults.any():
        return RowBlock(queries, positives, negatives, sorted(broken, key=_number))
    named = list(broken)
    for row in np.flatnonzero(faults).tolist():
        what = "query" if no_query[row] else "positive" if no_positive[row] else "negative"
        named.append(f"{place_of(row)}: {what!r} is empty")
    named.sort(key=_number)
    kept = pa.array(np.flatnonzero(~faults))
    return RowBlock(queries.take(kept), positives.take(kept), negatives.take(kept), named)


def lists_of(values: pa.StringArray, counts: npt.NDArray[np.integer]) -> pa.ListArray:
    """Group consecutive values into lists of the given lengths."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def negative_counts(block: RowBlock) -> Numbers:
    """Return how many negatives each row has, (n,)."""
    return np.diff(_offsets(block.negatives)).astype(np.int64)


def trimmed(texts: pa.StringArray) -> pa.StringArray:
    """Strip whitespace around each text; if all texts are ASCII, only ASCII whitespace is searched for (7 times
    faster).
    """
    if pc.all(pc.string_is_ascii(texts)).as_py() is not False:
        return pc.ascii_trim_whitespace(texts)
    return pc.utf8_trim_whitespace(texts)


def _number(message: str) -> int:
    """Return the line or row that a message names, for sorting old and new messages together."""
    match = NUMBER.search(message)
    return int(match[1]) if match else 0


def _offsets(lists: pa.ListArray) -> npt.NDArray[np.int32]:
    offsets: npt.NDArray[np.int32] = lists.offsets.to_numpy()
    return offsets


def _lacks_text(texts: pa.StringArray) -> Flags:
    flags: Flags = pc.fill_null(pc.equal(pc.binary_length(texts), 0), True).to_numpy(zero_copy_only=False)
    return flags
