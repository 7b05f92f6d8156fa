"""The order of the training data: from the seed and the epoch alone.

Batch number s of a run is the same whichever arm trains, on whatever machine, and after any resume: the whole
data state of a checkpoint is one integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ragcun_cli.data.triples import Triple


@dataclass(frozen=True)
class TripleBatch:
    """The texts of one loss.

    `rows` are the triples' places in the training file. `negatives` are the hard negatives there are, and
    `negative_owners[j]` is the row within the batch whose negative `negatives[j]` is.
    """

    rows: list[int]
    queries: list[str]
    positives: list[str]
    negatives: list[str]
    negative_owners: list[int]

    def texts(self) -> list[str]:
        """Queries, positives and negatives, one after the other."""
        return [*self.queries, *self.positives, *self.negatives]


def epoch_order(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The permutation of `count` triples in this epoch, shape (count,)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def batches_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches only: a smaller last one would have fewer negatives, so its loss would not compare."""
    return count // batch_size


class BatchSequence:
    """All batches of a run, by number from 0."""

    def __init__(self, triples: Sequence[Triple], batch_size: int, seed: int) -> None:
        self._triples = triples
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def batch(self, number: int) -> TripleBatch:
        """Batch `number` of the run; the one after an epoch's last is the next epoch's first."""
        epoch, place = divmod(number, batches_per_epoch(len(self._triples), self._batch_size))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(len(self._triples), self._seed, epoch)
        rows = self._order[place * self._batch_size : (place + 1) * self._batch_size].tolist()
        return _as_batch(rows, [self._triples[row] for row in rows])


def _as_batch(rows: list[int], triples: list[Triple]) -> TripleBatch:
    with_negative = [(owner, triple.negative) for owner, triple in enumerate(triples) if triple.negative is not None]
    return TripleBatch(
        rows=rows,
        queries=[triple.query for triple in triples],
        positives=[triple.positive for triple in triples],
        negatives=[negative for _, negative in with_negative],
        negative_owners=[owner for owner, _ in with_negative],
    )
