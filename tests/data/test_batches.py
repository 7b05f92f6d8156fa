"""The order of the data depends on seed and epoch alone."""

from __future__ import annotations

from ragcun_cli.data.batches import BatchSequence, batches_per_epoch, epoch_order
from ragcun_cli.data.triple_table import NO_NEGATIVE, tabulate
from ragcun_cli.data.triples import Triple

TABLE = tabulate([Triple(f"q{n}", f"p{n}", f"n{n}" if n % 2 else None) for n in range(70)])


def test_an_epoch_is_a_permutation_and_epochs_and_seeds_differ() -> None:
    orders = [tuple(epoch_order(70, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(70)) for order in orders)
    assert len(set(orders)) == 4


def test_any_batch_can_be_asked_for_in_any_order() -> None:
    forward = BatchSequence(TABLE.rows, 8, seed=3)
    in_order = [forward.batch(number).texts().tolist() for number in range(20)]
    jumping = BatchSequence(TABLE.rows, 8, seed=3)
    assert [jumping.batch(number).texts().tolist() for number in reversed(range(20))] == in_order[::-1]


def test_an_epoch_shows_each_triple_at_most_once_and_drops_the_rest_of_a_batch() -> None:
    sequence = BatchSequence(TABLE.rows, 8, seed=0)
    per_epoch = batches_per_epoch(70, 8)
    assert per_epoch == 8
    rows = [row for number in range(per_epoch) for row in sequence.batch(number).rows]
    assert len(rows) == len(set(rows)) == 64


def test_a_batch_knows_whose_negative_is_whose() -> None:
    batch = BatchSequence(TABLE.rows, 16, seed=0).batch(0)

    def texts(numbers: object) -> list[str]:
        return [TABLE.texts[number] for number in numbers]

    assert texts(batch.queries) == [f"q{row}" for row in batch.rows]
    assert texts(batch.positives) == [f"p{row}" for row in batch.rows]
    assert texts(batch.negatives) == [f"n{row}" for row in batch.rows if row % 2]
    assert [batch.rows[owner] for owner in batch.negative_owners] == [row for row in batch.rows if row % 2]
    assert texts(batch.texts()) == texts(batch.queries) + texts(batch.positives) + texts(batch.negatives)


def test_equal_texts_have_one_number() -> None:
    table = tabulate([Triple("q", "p", "n"), Triple("p", "q", None), Triple("r", "p", "p")])
    assert table.texts == ["q", "p", "n", "r"]
    assert table.rows.tolist() == [[0, 1, 2], [1, 0, NO_NEGATIVE], [3, 1, 1]]
    assert (len(table), table.hard_negatives) == (3, 2)


def test_passages_equal_to_a_querys_own_positive_are_not_counted_as_negatives() -> None:
    table = tabulate([Triple("a", "p", "n"), Triple("b", "p", "m"), Triple("c", "x", "p"), Triple("d", "y", None)])
    batch = BatchSequence(table.rows, 4, seed=0).batch(0)
    counted = dict(zip((table.texts[number] for number in batch.queries), batch.negatives_per_query(), strict=True))
    assert counted == {"a": 4, "b": 4, "c": 6, "d": 6}  # of seven passages, three are "p"
