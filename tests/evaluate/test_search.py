"""Exact search against float64, in the cases that break the usual way."""

from __future__ import annotations

import numpy as np
import pytest

from ragcun_cli.evaluate import search as search_module
from ragcun_cli.evaluate.search import search


def truth(queries: np.ndarray, passages: np.ndarray, k: int) -> np.ndarray:
    distances = ((queries[:, None].astype(np.float64) - passages[None].astype(np.float64)) ** 2).sum(-1)
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


def clouds(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    queries, passages = rng.standard_normal((40, 64)), rng.standard_normal((3000, 64))
    if kind == "mean-dominated":  # norm some 1,800, distances some 10: an encoder that has nearly collapsed
        queries, passages = queries + 228, passages + 228
    if kind == "unit-norm":
        queries, passages = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, passages))
    if kind == "anisotropic":
        scale = np.geomspace(1, 1e-3, 64)
        queries, passages = queries * scale, passages * scale
    return queries.astype(np.float32), passages.astype(np.float32)


@pytest.mark.parametrize("kind", ["isotropic", "mean-dominated", "unit-norm", "anisotropic"])
def test_the_nearest_are_those_of_float64(kind: str) -> None:
    queries, passages = clouds(kind, np.random.default_rng(0))
    found = search(queries, passages, 50)
    np.testing.assert_array_equal(found.passages, truth(queries, passages, 50))
    assert found.distances.dtype == np.float32
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_the_answer_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, passages = clouds("mean-dominated", np.random.default_rng(1))
    whole = search(queries, passages, 30)
    monkeypatch.setattr(search_module, "QUERY_BLOCK", 7)
    monkeypatch.setattr(search_module, "PASSAGE_BLOCK", 111)
    blocks = search(queries, passages, 30)
    np.testing.assert_array_equal(blocks.passages, whole.passages)


def test_equally_distant_passages_keep_their_order() -> None:
    rng = np.random.default_rng(2)
    passages = np.repeat(rng.standard_normal((5, 8)).astype(np.float32), 4, axis=0)[rng.permutation(20)]
    queries = rng.standard_normal((3, 8)).astype(np.float32)
    np.testing.assert_array_equal(search(queries, passages, 20).passages, truth(queries, passages, 20))


def test_fewer_passages_than_asked() -> None:
    passages = np.eye(3, dtype=np.float32)
    assert search(passages[:1], passages, 10).passages.shape == (1, 3)
