"""Tables of triples for tests, without a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragcun_cli.data.triples.table import TripleTable

Row = tuple[str, str, Sequence[str]]


def table_of(rows: Sequence[Row]) -> TripleTable:
    """Of (query, positive, negatives)."""
    numbers: dict[str, int] = {}

    def number(text: str) -> int:
        return numbers.setdefault(text, len(numbers))

    queries, positives, negatives, ends = [], [], [], []
    for query, positive, others in rows:
        queries.append(number(query))
        positives.append(number(positive))
        negatives += [number(each) for each in others]
        ends.append(len(negatives))
    columns = [np.array(each, dtype=np.int64) for each in (queries, positives, negatives, ends)]
    return TripleTable(list(numbers), "digest", *columns)


def rows_of(table: TripleTable) -> list[tuple[str, str, list[str]]]:
    """The texts of a table, row by row."""
    rows = []
    for row in range(len(table)):
        negatives, _ = table.negatives_of(np.array([row]))
        query, positive = table.texts[int(table.queries[row])], table.texts[int(table.positives[row])]
        rows.append((query, positive, [table.texts[number] for number in negatives.tolist()]))
    return rows
