"""A collection's judgements in the form the metrics take. No torch here: a report scores runs again."""

from __future__ import annotations

import numpy as np

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.collection import Collection
from ragcun_cli.data.registry import known_dataset
from ragcun_cli.results.metrics import NO_PASSAGE, Judgements


def judgements_of(collection: Collection) -> Judgements:
    """Return the collection's judgements, with queries and passages as numbers."""
    grades: list[dict[int, int]] = []
    lost: list[list[int]] = []
    for query_id in collection.query_ids:
        found = {passage_id: collection.corpus.row_of(passage_id) for passage_id in collection.qrels[query_id]}
        judged = collection.qrels[query_id]
        grades.append({row: judged[passage_id] for passage_id, row in found.items() if row is not None})
        lost.append([judged[passage_id] for passage_id, row in found.items() if row is None])
    return Judgements.of(grades, lost)


def self_matches(collection: Collection) -> Numbers | None:
    """Return, (n,), the passage with each query's id, -1 for none; None if equal ids mean nothing."""
    if not drops_identical_ids(collection.name):
        return None
    rows = [collection.corpus.row_of(query_id) for query_id in collection.query_ids]
    return np.array([NO_PASSAGE if row is None else row for row in rows], dtype=np.int64)


def drops_identical_ids(name: str) -> bool:
    """Whether a passage with the query's own id is dropped from the results."""
    known = known_dataset(name)
    return known is not None and known.queries_in_corpus
