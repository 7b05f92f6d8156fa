"""The order of the data depends on seed and epoch alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ragcun_cli.data.batches import BatchSequence, batches_per_epoch, conflicting_rows, epoch_order
from tests.triple_tables import rows_of, table_of

TABLE = table_of([(f"q{n}", f"p{n}", [f"n{n}"] if n % 2 else []) for n in range(70)])


def test_an_epoch_is_a_permutation_and_epochs_and_seeds_differ() -> None:
    orders = [tuple(epoch_order(70, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(70)) for order in orders)
    assert len(set(orders)) == 4


def test_any_batch_can_be_asked_for_in_any_order() -> None:
    forward = BatchSequence(TABLE, 8, seed=3)
    in_order = [forward.batch(number).texts().tolist() for number in range(20)]
    jumping = BatchSequence(TABLE, 8, seed=3)
    assert [jumping.batch(number).texts().tolist() for number in reversed(range(20))] == in_order[::-1]


def test_an_epoch_shows_each_triple_at_most_once_and_drops_the_rest_of_a_batch() -> None:
    sequence = BatchSequence(TABLE, 8, seed=0)
    per_epoch = batches_per_epoch(70, 8)
    assert per_epoch == 8
    rows = [row for number in range(per_epoch) for row in sequence.batch(number).rows]
    assert len(rows) == len(set(rows)) == 64


def test_a_batch_knows_whose_negative_is_whose() -> None:
    batch = BatchSequence(TABLE, 16, seed=0).batch(0)

    def texts(numbers: object) -> list[str]:
        return [TABLE.texts[number] for number in numbers]

    assert texts(batch.queries) == [f"q{row}" for row in batch.rows]
    assert texts(batch.positives) == [f"p{row}" for row in batch.rows]
    assert texts(batch.negatives) == [f"n{row}" for row in batch.rows if row % 2]
    assert [batch.rows[owner] for owner in batch.negative_owners] == [row for row in batch.rows if row % 2]
    assert texts(batch.texts()) == texts(batch.queries) + texts(batch.positives) + texts(batch.negatives)


def test_a_row_may_have_several_negatives() -> None:
    rows = [("a", "p", ["n", "m", "o"]), ("b", "x", []), ("c", "y", ["n"]), ("d", "z", ["m", "k"])]
    table = table_of(rows)
    assert rows_of(table) == [(query, positive, list(negatives)) for query, positive, negatives in rows]
    assert (len(table), table.with_negative) == (4, 3)
    batch = BatchSequence(table, 4, seed=0).batch(0)
    found: dict[str, list[str]] = {each: [] for each in "abcd"}
    for owner, number in zip(batch.negative_owners, batch.negatives, strict=True):
        found[table.texts[batch.queries[owner]]].append(table.texts[number])
    assert found == {"a": ["n", "m", "o"], "b": [], "c": ["n"], "d": ["m", "k"]}
    assert [table.texts[number] for number in table.passages()] == ["p", "n", "m", "o", "x", "y", "z", "k"]


def test_passages_equal_to_a_querys_own_positive_are_not_counted_as_negatives() -> None:
    table = table_of([("a", "p", ["n"]), ("b", "p", ["m"]), ("c", "x", ["p"]), ("d", "y", [])])
    batch = BatchSequence(table, 4, seed=0).batch(0)
    counted = dict(zip((table.texts[number] for number in batch.queries), batch.negatives_per_query(), strict=True))
    assert counted == {"a": 4, "b": 4, "c": 6, "d": 6}  # of seven passages, three are "p"


def test_a_run_may_begin_at_any_batch() -> None:
    """As a resumed one does, in its second epoch for one."""
    in_order = BatchSequence(TABLE, 8, seed=3)
    expected = [in_order.batch(number).rows.tolist() for number in range(24)]
    for number in range(24):
        assert BatchSequence(TABLE, 8, seed=3).batch(number).rows.tolist() == expected[number]
    second = list(itertools.chain.from_iterable(expected[8:16]))
    assert sorted(second) == sorted(set(second))
    assert expected[8:16] != expected[:8]
    assert expected[0] == epoch_order(70, 3, 0)[:8].tolist()
    assert expected[8] == epoch_order(70, 3, 1)[:8].tolist()


@pytest.mark.parametrize("batch_size", [2, 4, 5])
def test_conflicts_are_counted_as_the_batches_have_them(batch_size: int) -> None:
    rng = np.random.default_rng(batch_size)
    rows = [(f"q{rng.integers(6)}", f"p{rng.integers(4)}", []) for _ in range(23)]
    table = table_of(rows)
    sequence = BatchSequence(table, batch_size, seed=3)
    expected = 0
    for number in range(batches_per_epoch(23, batch_size)):
        batch = sequence.batch(number)
        pairs = list(zip(batch.queries.tolist(), batch.positives.tolist(), strict=True))
        expected += sum(any(q == query and p != positive for q, p in pairs) for query, positive in pairs)
    assert conflicting_rows(table, batch_size, seed=3) == expected > 0
    assert conflicting_rows(table_of([("a", "p", []), ("a", "p", [])]), 2, 0) == 0  # copies are masked already
    assert conflicting_rows(table_of([("a", "p", []), ("a", "x", [])]), 2, 0) == 2
