"""Triples as numbers: each distinct text once, and columns of text numbers.

Two passages are the same passage where their numbers are equal, so a text's number is its content id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragcun_cli.arrays import Numbers


@dataclass(frozen=True)
class TripleTable:
    """n rows of m hard negatives in all, any number in each row.

    texts: the distinct ones, memory-mapped where they come from a file; digest: differs where texts or their numbers
    do. queries, positives: (n,) text numbers; negatives: (m,) text numbers, row after row;
    negative_ends: (n,), where each row's end. left_out: rows of the file that are broken and not among these;
    first_left_out: the first of them, as `file:line: what is wrong`.
    """

    texts: Sequence[str]
    digest: str
    queries: Numbers
    positives: Numbers
    negatives: Numbers
    negative_ends: Numbers
    left_out: int = 0
    first_left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def with_negative(self) -> int:
        """How many rows have one or more."""
        return int((np.diff(self.negative_ends, prepend=0) > 0).sum())

    def negatives_of(self, rows: Numbers) -> tuple[Numbers, Numbers]:
        """(k,) the negatives of these rows, by text number, and (k,) the place among `rows` that each belongs to."""
        ends = self.negative_ends[rows]
        starts = np.where(rows > 0, self.negative_ends[rows - 1], 0)
        owners = np.repeat(np.arange(len(rows)), ends - starts)
        # The i-th negative of a row is i places after the row's start.
        before = np.concatenate([[0], np.cumsum(ends - starts)[:-1]]) if len(rows) else starts
        places = np.arange(len(owners)) - before[owners] + starts[owners]
        return self.negatives[places], owners

    def select(self, rows: Numbers) -> TripleTable:
        """These rows, in this order; texts and their numbers stay."""
        negatives, owners = self.negatives_of(rows)
        ends = np.cumsum(np.bincount(owners, minlength=len(rows)))
        return dataclasses.replace(
            self,
            queries=self.queries[rows],
            positives=self.positives[rows],
            negatives=negatives,
            negative_ends=ends.astype(np.int64),
        )

    def passages(self) -> Numbers:
        """The distinct positives and negatives, by text number, ascending."""
        return np.unique(np.concatenate([self.positives, self.negatives]))


def evenly(count: int, wanted: int) -> Numbers:
    """At most so many of the places 0 to count - 1, from all over, ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))
