"""Exact search against float64, in the cases that break the usual way, whatever the memory, precision and processes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ragcun_cli.evaluate import search as search_module
from ragcun_cli.evaluate.precision import Precision
from ragcun_cli.evaluate.search import merge, search
from ragcun_cli.evaluate.vectors import PassageVectors

KINDS = ("isotropic", "mean-dominated", "unit-norm", "anisotropic", "clusters", "duplicates")
PRECISIONS = (Precision.float32(), Precision.tf32(), Precision.bfloat16())


def truth(queries: np.ndarray, passages: np.ndarray, k: int) -> np.ndarray:
    wide = passages.astype(np.float64)
    distances = np.stack([((wide - query) ** 2).sum(-1) for query in queries.astype(np.float64)])
    numbers = np.broadcast_to(-np.arange(len(passages)), distances.shape)  # of equals the greater number first
    return np.lexsort((numbers, distances), axis=1)[:, :k]


def clouds(kind: str, seed: int, count: int = 3000, dimensions: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    queries, passages = rng.standard_normal((40, dimensions)), rng.standard_normal((count, dimensions))
    if kind == "mean-dominated":  # norm some 1,800, distances some 10: an encoder that has nearly collapsed
        queries, passages = queries + 228, passages + 228
    if kind == "unit-norm":
        queries, passages = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, passages))
    if kind == "anisotropic":
        scale = np.geomspace(1, 1e-3, dimensions)
        queries, passages = queries * scale, passages * scale
    if kind == "clusters":
        centres = rng.standard_normal((20, dimensions))
        queries, passages = (centres[rng.integers(0, 20, len(x))] + 0.01 * x for x in (queries, passages))
    if kind == "duplicates":  # each passage a hundred times: more equals than candidates are kept
        passages = np.repeat(passages[: count // 100], 100, axis=0)[rng.permutation(count)]
    return queries.astype(np.float32), passages.astype(np.float32)


@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda each: each.name)
@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_are_those_of_float64(kind: str, precision: Precision) -> None:
    queries, passages = clouds(kind, 0)
    expected = truth(queries, passages, 50)
    for memory in (1 << 30, 1 << 20):  # one pass for all queries, and a pass for every few
        found = search(queries, PassageVectors.of_array(passages), 50, memory=memory, precision=precision)
        np.testing.assert_array_equal(found.passages, expected)
        assert (np.diff(found.distances, axis=1) >= 0).all()


def test_float32_answers_with_certainty_where_tf32_cannot() -> None:
    """At a paper's depth TF32's error is wider than some gaps between candidates; with more passages, than all."""
    queries, passages = clouds("isotropic", 1, count=20_000, dimensions=128)
    vectors = PassageVectors.of_array(passages)
    by_default = search(queries, vectors, 1000)
    assert by_default.unproven.mean() <= 0.01
    assert search(queries, vectors, 1000, precision=Precision.tf32()).unproven.mean() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_guessed_limit_changes_no_answer(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more passages than are sampled; one guess that is good, one far too low and one that keeps everything."""
    queries, passages = clouds(kind, 1, count=6000, dimensions=16)
    expected = truth(queries, passages, 20)
    for deviations in (4, -3, 1000):
        monkeypatch.setattr(search_module, "GUESS_DEVIATIONS", deviations)
        monkeypatch.setattr(search_module, "SAMPLED", 500)
        found = search(queries, PassageVectors.of_array(passages), 20, memory=1 << 21)
        np.testing.assert_array_equal(found.passages, expected)
    assert search(queries[:1], PassageVectors.of_array(passages), 20).passages.tolist() == expected[:1].tolist()


def test_passages_sorted_by_nearness_defeat_the_guess_but_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "SAMPLED", 50)
    queries, passages = clouds("isotropic", 2, count=4000, dimensions=16)
    for order in (1, -1):
        falling = passages[np.argsort(order * np.linalg.norm(passages - queries[0], axis=1))]
        found = search(queries, PassageVectors.of_array(falling), 30, memory=1 << 20)
        np.testing.assert_array_equal(found.passages, truth(queries, falling, 30))


def test_a_wrong_product_is_caught_by_its_own_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof is no decoration: a product that is off by as much as its bound says must lead to a second search."""
    queries, passages = clouds("isotropic", 3)
    noisy = Precision("noisy", 2.0**-6)
    real = Precision.product

    def product(self: Precision, norms: torch.Tensor, *arguments: torch.Tensor, out: torch.Tensor | None = None):
        scores = real(self, norms, *arguments, out=out)
        if self is noisy:
            generator = torch.Generator().manual_seed(0)
            scores += 2.0 * (torch.rand(scores.shape, generator=generator) - 0.5)
        return scores

    monkeypatch.setattr(Precision, "product", product)
    found = search(queries, PassageVectors.of_array(passages), 50, precision=noisy)
    assert found.unproven.any()
    np.testing.assert_array_equal(found.passages, truth(queries, passages, 50))


def test_float32_is_nearly_always_proven() -> None:
    for kind in ("isotropic", "mean-dominated", "unit-norm", "anisotropic"):
        queries, passages = clouds(kind, 4)
        assert search(queries, PassageVectors.of_array(passages), 50).unproven.sum() == 0


@pytest.mark.parametrize("kind", ["isotropic", "duplicates"])
def test_shards_in_any_order_give_the_same_answer(tmp_path: Path, kind: str) -> None:
    queries, passages = clouds(kind, 5)
    shuffled = np.random.default_rng(0).permutation(len(passages))
    paths, places = [], np.empty((len(passages), 2), dtype=np.int64)
    for number, rows in enumerate(np.array_split(shuffled, 7)):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], passages[rows])
        places[rows] = np.stack([np.full(len(rows), number), np.arange(len(rows))], axis=1)
    stored = PassageVectors.of_places(paths, passages.shape[1], places)
    expected = truth(queries, passages, 30)
    np.testing.assert_array_equal(search(queries, stored, 30).passages, expected)
    np.testing.assert_array_equal(stored.of_passages(np.array([7, 2, 7])), passages[[7, 2, 7]])
    repeated = np.array([3, 3, 5, 5, 5, 8])
    np.testing.assert_array_equal(stored.take(repeated), passages[stored.rows[repeated]])
    for parts in (2, 3):
        cuts = [len(stored) * number // parts for number in range(parts + 1)]
        found = [search(queries, stored.part(*cut), 30) for cut in itertools.pairwise(cuts)]
        np.testing.assert_array_equal(merge(queries, stored, 30, found).passages, expected)


def test_one_vector_may_stand_for_several_passages() -> None:
    vectors = np.eye(3, dtype=np.float32)
    places = np.array([[0, 2], [0, 0], [0, 2], [0, 1]])
    passages = PassageVectors([vectors], 3, *(np.zeros(4, np.int32), np.array([0, 1, 2, 2]), np.array([1, 3, 0, 2])))
    assert PassageVectors.of_places([Path("x")], 3, places).rows.tolist() == [1, 3, 0, 2]
    assert search(vectors[2:], passages, 4).passages.tolist() == [[2, 0, 3, 1]]


def test_all_embeddings_alike() -> None:
    """A collapsed encoder: every distance is equal, and the ids decide."""
    passages = np.ones((5000, 8), dtype=np.float32)
    found = search(passages[:3], PassageVectors.of_array(passages), 10)
    assert found.passages.tolist() == [list(range(4999, 4989, -1))] * 3


def test_fewer_passages_than_asked_and_a_single_query() -> None:
    passages = np.eye(3, dtype=np.float32)
    assert search(passages[:1], PassageVectors.of_array(passages), 10).passages.shape == (1, 3)
    assert search(passages[:1], PassageVectors.of_array(passages[:1]), 10).passages.tolist() == [[0]]


def test_neighbours_that_float32_cannot_tell_apart() -> None:
    """One large dimension and a constant tail: a float32 sum errs by more than the two distances differ."""
    for dimensions in (16, 384, 512, 1000):
        tails = np.linspace(1e-3, 1.2e-3, 200)
        passages = np.zeros((200, dimensions), dtype=np.float32)
        passages[:, 0] = 1 + np.random.default_rng(0).permutation(200) * 6e-8
        passages[:, 1:] = tails[::-1, None]
        queries = np.zeros((1, dimensions), dtype=np.float32)
        for order in (slice(None), slice(None, None, -1)):
            shown = np.ascontiguousarray(passages[order])
            found = search(queries, PassageVectors.of_array(shown), 100)
            np.testing.assert_array_equal(found.passages, truth(queries, shown, 100))


def test_near_ties_made_of_integers_are_ties() -> None:
    """Distances of small integers are exact in float32, and many are equal: the ids decide."""
    rng = np.random.default_rng(0)
    passages = rng.integers(-2, 3, (4500, 12)).astype(np.float32)
    queries = rng.integers(-2, 3, (5, 12)).astype(np.float32)
    for k in (1, 10, 200):
        found = search(queries, PassageVectors.of_array(passages), k)
        np.testing.assert_array_equal(found.passages, truth(queries, passages, k))


def test_as_many_as_there_are() -> None:
    queries, passages = clouds("isotropic", 8, count=5000, dimensions=4)
    for k in (4990, 5000, 9999):
        found = search(queries[:2], PassageVectors.of_array(passages), k)
        np.testing.assert_array_equal(found.passages, truth(queries[:2], passages, k))


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-12, 1e12, 1e18])
def test_very_small_and_very_large_embeddings(scale: float) -> None:
    queries, passages = clouds("isotropic", 9, count=5000)
    queries, passages = queries * np.float32(scale), passages * np.float32(scale)
    found = search(queries, PassageVectors.of_array(passages), 20)
    np.testing.assert_array_equal(found.passages, truth(queries, passages, 20))
    assert found.distances[0, 0] == pytest.approx(truth_distance(queries[0], passages, found.passages[0, 0]), rel=1e-6)


def truth_distance(query: np.ndarray, passages: np.ndarray, row: int) -> float:
    return float(((query.astype(np.float64) - passages[row].astype(np.float64)) ** 2).sum())


@pytest.mark.parametrize("length", [1e2, 1e6, 1e12])
def test_passages_far_from_all_others(length: float) -> None:
    queries, passages = clouds("isotropic", 10, count=5000)
    passages[::500] *= np.float32(length)
    found = search(queries, PassageVectors.of_array(passages), 20)
    np.testing.assert_array_equal(found.passages, truth(queries, passages, 20))


def test_progress_rises_to_one() -> None:
    queries, passages = clouds("isotropic", 11)
    shares: list[float] = []
    search(queries, PassageVectors.of_array(passages), 10, memory=1 << 20, on_share=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


MEASURE = """
import resource, sys
import numpy as np, torch
from ragcun_cli.evaluate.search import search
from ragcun_cli.evaluate.vectors import PassageVectors
torch.set_num_threads(1)
kind, dimensions, budget = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
passages = rng.standard_normal((4500, dimensions), dtype=np.float32)
if kind == "ties":
    passages[:] = passages[:1]
    passages[0] += 1
queries = rng.standard_normal((300, dimensions), dtype=np.float32)
search(queries[:2], PassageVectors.of_array(passages[:50]), 5, memory=1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
search(queries, PassageVectors.of_array(passages), 300, memory=budget << 20)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dimensions"), [("isotropic", 512), ("ties", 512), ("isotropic", 2048)])
def test_memory_stays_within_the_budget(kind: str, dimensions: int) -> None:
    """What the process takes more at its peak, all equal distances included."""
    command = [sys.executable, "-c", MEASURE, kind, str(dimensions), "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 100
