"""Counts of cosines and lengths."""

from __future__ import annotations

import numpy as np
import pytest

from ragcun_cli.results.histograms import COSINES, LENGTHS, PAIRS, Histograms, added_histograms, measure_histograms

RNG = np.random.default_rng(1)


def measured(queries: np.ndarray, passages: np.ndarray, pairs: np.ndarray) -> Histograms:
    return measure_histograms(
        queries.astype(np.float32), passages.astype(np.float32), pairs, passages[pairs].astype(np.float32)
    )


def mean_cosine(counts: np.ndarray) -> float:
    return float(np.average((COSINES[1:] + COSINES[:-1]) / 2, weights=counts))


def test_relevant_pairs_are_those_beside_each_other() -> None:
    passages = RNG.normal(size=(200, 50))
    found = measured(passages, passages, np.arange(200))
    assert found.positives[-1] == 200  # each with itself
    assert mean_cosine(found.random) == pytest.approx(0, abs=0.05)
    opposite = measure_histograms(
        passages.astype(np.float32), passages.astype(np.float32), np.arange(200), -passages.astype(np.float32)
    )
    assert opposite.positives[0] == 200


def test_lengths_are_in_root_mean_squares_of_passages() -> None:
    passages = np.repeat([[3.0, 4.0]], 10, axis=0)
    queries = np.repeat([[30.0, 40.0], [0.0, 0.0]], 5, axis=0)
    found = measured(queries, passages, np.arange(10))
    assert found.mean_square_length == pytest.approx(25)
    assert found.passages[np.searchsorted(LENGTHS, 1.0, side="right") - 1] == 10
    assert (found.queries[-1], found.queries[0]) == (5, 5)  # too long for the last bin, and zero
    assert found.positives.sum() == 10


def test_no_pairs_at_all() -> None:
    passages = RNG.normal(size=(5, 3))
    found = measured(passages, passages, np.array([], dtype=np.int64))
    assert found.positives.sum() == found.random.sum() == 0


def test_pairs_are_sampled() -> None:
    passages = RNG.normal(size=(300, 4))
    found = measured(passages, passages, RNG.integers(300, size=PAIRS + 1000))
    assert found.positives.sum() == found.random.sum() == PAIRS


def test_parts_add_up() -> None:
    passages = RNG.normal(size=(20, 4))
    one = measured(passages, passages, np.arange(20))
    both = added_histograms([one, one])
    assert (both.positives == 2 * one.positives).all()
    assert both.mean_square_length == one.mean_square_length
    assert both.entry()["length"]["passages"] == (2 * one.passages).tolist()
