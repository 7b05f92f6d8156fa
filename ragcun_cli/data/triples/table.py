"""Triples as numbers: a list of distinct texts, and columns of text numbers.

Passages with equal numbers are the same passage, so a text's number identifies its content.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragcun_cli.arrays import Numbers


@dataclass(frozen=True)
class TripleTable:
    """A table of n rows with m hard negatives in total, any number per row.

    texts: distinct texts, memory-mapped if they come from a file; digest: differs if texts or their numbers
    differ. queries, positives: (n,) text numbers; negatives: (m,) text numbers, row after row;
    negative_ends: (n,), where each row's negatives end. left_out: number of broken rows of the file, not included here;
    first_left_out: the first few of them, as `file:line: what is wrong`.
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
        """Number of rows that have at least one negative."""
        return int((np.diff(self.negative_ends, prepend=0) > 0).sum())

    def negatives_of(self, rows: Numbers) -> tuple[Numbers, Numbers]:
        """Return the negatives of these rows, (k,) text numbers, and the index into `rows` of each, (k,)."""
        ends = self.negative_ends[rows]
        starts = np.where(rows > 0, self.negative_ends[rows - 1], 0)
        owners = np.repeat(np.arange(len(rows)), ends - starts)
        # The i-th negative of a row is i places after the row's start.
        before = np.concatenate([[0], np.cumsum(ends - starts)[:-1]]) if len(rows) else starts
        places = np.arange(len(owners)) - before[owners] + starts[owners]
        return self.negatives[places], owners

    def select(self, rows: Numbers) -> TripleTable:
        """Return these rows in this order; texts and their numbers stay the same."""
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
        """Return the distinct positives and negatives as ascending text numbers."""
        return np.unique(np.concatenate([self.positives, self.negatives]))


def evenly(count: int, wanted: int) -> Numbers:
    """Return at most `wanted` evenly spaced places from 0 to count - 1, ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))
