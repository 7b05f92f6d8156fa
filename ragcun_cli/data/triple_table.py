"""Triples as numbers: each distinct text once, and three columns of text numbers.

Two passages are the same passage where their numbers are equal, so a text's number is its content id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ragcun_cli.data.triples import Triple

NO_NEGATIVE = -1


@dataclass(frozen=True)
class TripleTable:
    """texts: the distinct ones, in the order of their first use. rows: (triples, 3) int64, the numbers of query,
    positive and negative, NO_NEGATIVE where the data give none.
    """

    texts: list[str]
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def hard_negatives(self) -> int:
        """How many triples have one."""
        return int((self.rows[:, 2] != NO_NEGATIVE).sum())


def tabulate(triples: Sequence[Triple]) -> TripleTable:
    """Number the texts of all triples."""
    numbers: dict[str, int] = {}

    def number(text: str | None) -> int:
        return NO_NEGATIVE if text is None else numbers.setdefault(text, len(numbers))

    rows = [(number(each.query), number(each.positive), number(each.negative)) for each in triples]
    return TripleTable(list(numbers), np.array(rows, dtype=np.int64).reshape(-1, 3))
