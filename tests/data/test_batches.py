"""The order of the data depends on seed and epoch alone."""

from __future__ import annotations

from ragcun_cli.data.batches import BatchSequence, batches_per_epoch, epoch_order
from ragcun_cli.data.triples import Triple

TRIPLES = [Triple(f"q{n}", f"p{n}", f"n{n}" if n % 2 else None) for n in range(70)]


def test_an_epoch_is_a_permutation_and_epochs_and_seeds_differ() -> None:
    orders = [tuple(epoch_order(70, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(70)) for order in orders)
    assert len(set(orders)) == 4


def test_any_batch_can_be_asked_for_in_any_order() -> None:
    forward = BatchSequence(TRIPLES, 8, seed=3)
    in_order = [forward.batch(number) for number in range(20)]
    jumping = BatchSequence(TRIPLES, 8, seed=3)
    assert [jumping.batch(number) for number in reversed(range(20))] == in_order[::-1]


def test_an_epoch_shows_each_triple_at_most_once_and_drops_the_rest_of_a_batch() -> None:
    sequence = BatchSequence(TRIPLES, 8, seed=0)
    per_epoch = batches_per_epoch(70, 8)
    assert per_epoch == 8
    rows = [row for number in range(per_epoch) for row in sequence.batch(number).rows]
    assert len(rows) == len(set(rows)) == 64


def test_a_batch_knows_whose_negative_is_whose() -> None:
    batch = BatchSequence(TRIPLES, 16, seed=0).batch(0)
    assert batch.queries == [f"q{row}" for row in batch.rows]
    assert batch.positives == [f"p{row}" for row in batch.rows]
    assert batch.negatives == [f"n{row}" for row in batch.rows if row % 2]
    assert [batch.rows[owner] for owner in batch.negative_owners] == [row for row in batch.rows if row % 2]
    assert batch.texts() == batch.queries + batch.positives + batch.negatives
