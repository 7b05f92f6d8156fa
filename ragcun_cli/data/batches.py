"""The order of the training data, which depends only on the seed and the epoch.

Batch number s of a run is the same for every arm, on every machine and after every resume, so the whole
data state of a checkpoint is one integer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.triples.table import TripleTable


@dataclass(frozen=True)
class TripleBatch:
    """The texts of one loss, by number in the `TripleTable`.

    rows: (n,) the triples' positions in the training file. queries, positives: (n,) text numbers. negatives: (m,) those
    of the hard negatives, if any; negative_owners: (m,) the row of the batch that each negative belongs to.
    """

    rows: Numbers
    queries: Numbers
    positives: Numbers
    negatives: Numbers
    negative_owners: Numbers

    def texts(self) -> Numbers:
        """Return queries, positives and negatives in sequence: (2 n + m,)."""
        return np.concatenate([self.queries, self.positives, self.negatives])

    def negatives_per_query(self) -> Numbers:
        """Return how many passages each query is contrasted with, (n,): all that differ from its own positive."""
        passages = np.concatenate([self.positives, self.negatives])
        distinct, counts = np.unique(passages, return_counts=True)
        return len(passages) - counts[np.searchsorted(distinct, self.positives)]


def epoch_order(count: int, seed: int, epoch: int) -> Numbers:
    """Return the permutation of `count` triples in this epoch, shape (count,)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def batches_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of whole batches. A smaller last one would have fewer negatives and a different loss."""
    return count // batch_size


def conflicting_rows(table: TripleTable, batch_size: int, seed: int) -> int:
    """Count the first epoch's triples in the same batch as a triple with the same query but another positive.

    Each then serves as the other's negative, though both are known to answer the query.
    """
    order = epoch_order(len(table), seed, 0)[: batches_per_epoch(len(table), batch_size) * batch_size]
    texts = len(table.texts)
    keys = np.arange(len(order)) // batch_size * texts + table.queries[order]  # unique per batch and query
    _, group = np.unique(keys, return_inverse=True)
    answers = np.unique(group * texts + table.positives[order])
    return int((np.bincount(answers // texts)[group] > 1).sum())


class BatchSequence:
    """All batches of a run, by number from 0."""

    def __init__(self, table: TripleTable, batch_size: int, seed: int) -> None:
        self._table = table
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._order: Numbers = np.empty(0, dtype=np.int64)

    def batch(self, number: int) -> TripleBatch:
        """Return batch `number` of the run; an epoch's last batch is followed by the next epoch's first."""
        epoch, place = divmod(number, batches_per_epoch(len(self._table), self._batch_size))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(len(self._table), self._seed, epoch)
        rows = self._order[place * self._batch_size : (place + 1) * self._batch_size]
        negatives, owners = self._table.negatives_of(rows)
        return TripleBatch(rows, self._table.queries[rows], self._table.positives[rows], negatives, owners)
