"""Rows from a collection in BEIR's layout: each relevant passage of a judged query is a positive."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ragcun_cli.data.collection import Collection
from ragcun_cli.data.qrels import qrels_lines
from ragcun_cli.data.triples.columns import Columns
from ragcun_cli.data.triples.rows import RowBlock, block_of_texts

ROWS_AT_A_TIME = 20_000


def read_pairs(collection: Collection) -> tuple[Columns, Iterator[RowBlock]]:
    """Queries and their relevant passages, without hard negatives: `ragcun data mine` finds those."""
    return Columns("query", "positive", ()), _blocks(collection)


def _blocks(collection: Collection) -> Iterator[RowBlock]:
    queries = dict(zip(collection.query_ids, collection.queries, strict=True))
    pairs: list[tuple[int, str, int]] = []
    broken: list[str] = []
    for number, query_id, passage_id, grade in qrels_lines(collection.qrels_path, collection.qrels_label):
        if grade <= 0:
            continue
        row = collection.corpus.row_of(passage_id)
        if row is None:
            broken.append(f"{collection.qrels_label}:{number}: passage {passage_id!r} is not in the corpus")
            continue
        pairs.append((number, queries[query_id], row))
        if len(pairs) == ROWS_AT_A_TIME:
            yield _block(collection, pairs, broken)
            pairs, broken = [], []
    yield _block(collection, pairs, broken)


def _block(collection: Collection, pairs: list[tuple[int, str, int]], broken: list[str]) -> RowBlock:
    passages = collection.corpus.texts(np.array([row for _, _, row in pairs], dtype=np.int64))
    return block_of_texts(
        [query for _, query, _ in pairs],
        passages,
        [[] for _ in pairs],
        lambda row: f"{collection.qrels_label}:{pairs[row][0]}",
        broken,
    )
