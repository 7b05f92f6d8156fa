"""Equally distant passages: trec_eval's order, and what every other order would give."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from ragcun_cli.data.collection import Collection, read_collection
from ragcun_cli.evaluate.results import write_results
from ragcun_cli.evaluate.scoring import Evaluation, Scheme, evaluate
from ragcun_cli.evaluate.search import search
from ragcun_cli.results.metrics import CAPPED_CUTS, CUTS, NDCG_CUTS, Judgements, score
from ragcun_cli.results.ties import UNAFFECTED, levels_of, measure_ties
from tests.evaluate.test_results import dataset, entry
from tests.retrieval_tasks import embedded_by, write_task


def tied_task(folder: Path, passages: int = 400, queries: int = 30, distinct: int = 60, seed: int = 0) -> Collection:
    """Passages at a few places on a line, so that every query has equals all over its ranking; ids of all lengths."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, distinct, passages)
    # "d9" comes after "d10" by its bytes, and "é" after both.
    ids = [f"{'é' if number % 7 == 0 else 'd'}{number}" for number in range(passages)]
    texts = {identity: str(place) for identity, place in zip(ids, places.tolist(), strict=True)}
    asked = {f"q{number}": str(rng.integers(0, distinct) + 0.25) for number in range(queries)}
    grades = {
        query: {ids[place]: int(rng.integers(-1, 4)) for place in rng.choice(passages, 25, replace=False).tolist()}
        for query in asked
    }
    return read_collection(write_task(folder / "tied", texts, asked, grades))


def on_a_line(texts: list[str]) -> np.ndarray:
    return np.array([[float(text), 0.0] for text in texts], dtype=np.float32)


def evaluated(collection: Collection, scratch: Path, robustness: bool = False) -> Evaluation:
    return evaluate(embedded_by(on_a_line, collection), collection, Scheme(), None, search, robustness, scratch)


def names_at_trec_eval() -> dict[str, tuple[str, str]]:
    names = {f"ndcg@{cut}": (f"ndcg_cut.{cut}", f"ndcg_cut_{cut}") for cut in NDCG_CUTS}
    for ours, theirs in (("map", "map_cut"), ("recall", "recall"), ("precision", "P")):
        names |= {f"{ours}@{cut}": (f"{theirs}.{cut}", f"{theirs}_{cut}") for cut in CUTS}
    return names | {"map": ("map", "map"), "mrr": ("recip_rank", "recip_rank")}


@pytest.mark.parametrize("seed", range(3))
def test_every_metric_is_trec_evals_on_the_distances_themselves(tmp_path: Path, seed: int) -> None:
    collection = tied_task(tmp_path, seed=seed)
    found = evaluated(collection, tmp_path)
    passages, queries = on_a_line(collection.corpus.texts()), on_a_line(collection.queries)
    ids = collection.corpus.ids(range(len(collection.corpus)))
    # Whole quarters squared: float32, as trec_eval holds scores, tells these distances apart.
    runs = {
        query_id: dict(zip(ids, (-((passages - query) ** 2).sum(axis=1)).tolist(), strict=True))
        for query_id, query in zip(collection.query_ids, queries, strict=True)
    }
    names = names_at_trec_eval()
    theirs = pytrec_eval.RelevanceEvaluator(collection.qrels, {asked for asked, _ in names.values()}).evaluate(runs)
    for name, (_, answer) in names.items():
        figures = [theirs[query_id][answer] for query_id in collection.query_ids]
        np.testing.assert_allclose(found.per_query[name], figures, atol=1e-12, rtol=0, err_msg=name)


def test_trec_eval_finds_every_metric_in_the_run_files_own_columns(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    collection = tied_task(tmp_path, passages=1500)  # more than a run has ranks
    tied = type(data)("tied", data.path, {"tied": collection}, None, ())
    found = evaluated(collection, tmp_path)
    folder = tmp_path / "results"
    write_results(folder, entry(), tied, {"tied": found}, {"precision": "float32"})
    with gzip.open(folder / "tied.run.gz", "rt", encoding="utf-8") as stream:
        lines = [line.split() for line in stream]
    run: dict[str, dict[str, float]] = {}
    for query_id, _, passage_id, _, value, _ in lines:
        run.setdefault(query_id, {})[passage_id] = float(value)
    assert any(len(set(each.values())) < len(each) for each in run.values())  # equals stay equals in the file
    names = names_at_trec_eval()
    theirs = pytrec_eval.RelevanceEvaluator(collection.qrels, {asked for asked, _ in names.values()}).evaluate(run)
    for name, (_, answer) in names.items():
        figures = [theirs[query_id][answer] for query_id in collection.query_ids]
        np.testing.assert_allclose(found.per_query[name], figures, atol=1e-12, rtol=0, err_msg=name)


def every_order(groups: list[list[int]]) -> list[list[int]]:
    orders = [list(map(list, itertools.permutations(group))) for group in groups]
    return [[passage for group in chosen for passage in group] for chosen in itertools.product(*orders)]


@pytest.mark.parametrize(
    ("groups", "grades"),
    [
        ([[0, 1, 2], [3], [4, 5, 6]], {1: 2, 2: 1, 5: 3, 9: 1}),
        ([[0], [1, 2, 3, 4, 5]], {2: 1, 4: 1, 5: 0}),
        ([[0, 1, 2, 3]], {0: 1, 1: 2, 2: -1}),
        ([[0, 1], [2, 3], [4, 5, 6, 7]], {1: 1, 3: 1, 4: 3}),
    ],
)
@pytest.mark.parametrize("depth", [3, 5, 1000])
def test_expected_least_and_greatest_are_those_over_every_order(
    groups: list[list[int]], grades: dict[int, int], depth: int
) -> None:
    judgements = Judgements.of([grades])
    ranked = np.array([[passage for group in groups for passage in group]])
    levels = np.array([[number for number, group in enumerate(groups) for _ in group]])
    figures = score(judgements, ranked[:, :depth])
    found = measure_ties(judgements, ranked, levels, depth, figures)
    orders = [score(judgements, np.array([order[:depth]])) for order in every_order(groups)]
    assert found is not None
    for name in found.expected:
        values = [float(each[name][0]) for each in orders]
        assert found.expected[name] == pytest.approx(np.mean(values), abs=1e-12), name
        assert (found.low[name], found.high[name]) == pytest.approx((min(values), max(values)), abs=1e-12), name
    capped = {f"capped_recall@{cut}" for cut in CAPPED_CUTS}
    assert set(found.expected) == set(figures) - UNAFFECTED > capped


def test_where_equals_have_one_grade_nothing_is_said() -> None:
    judgements = Judgements.of([{0: 1, 1: 1, 5: 1}])
    ranked, levels = np.array([[0, 1, 2, 3]]), np.array([[0, 0, 1, 1]])
    assert measure_ties(judgements, ranked, levels, 10, score(judgements, ranked)) is None


def test_equals_behind_the_last_rank_that_counts_change_nothing() -> None:
    judgements = Judgements.of([{4: 1}])
    ranked, levels = np.array([[0, 1, 2, 3, 4]]), np.array([[0, 1, 2, 3, 3]])
    assert measure_ties(judgements, ranked, levels, 3, score(judgements, ranked[:, :3])) is None
    touched = measure_ties(judgements, ranked, levels, 4, score(judgements, ranked[:, :4]))
    assert touched is not None
    assert touched.queries == 1
    assert (touched.low["recall@10"], touched.expected["recall@10"], touched.high["recall@10"]) == (0.0, 0.5, 1.0)
    assert touched.open == 1  # its equals may go on


def test_equals_are_counted_over_all_queries_and_means_are_too() -> None:
    judgements = Judgements.of([{0: 1}, {1: 1}, {2: 1}])
    ranked = np.array([[0, 1], [0, 1], [2, 0]])
    levels = np.array([[0, 1], [0, 0], [0, 1]])
    found = measure_ties(judgements, ranked, levels, 10, score(judgements, ranked))
    assert found is not None
    assert found.queries == 1
    assert found.open == 0
    assert found.expected["precision@1"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert found.expected["mrr"] == found.expected["mrr@10"] == pytest.approx((1 + 0.75 + 1) / 3)


def test_levels_share_a_number_where_distances_are_equal() -> None:
    distances = np.array([[0.0, 0.0, 0.5, 0.7], [1.0, 2.0, 2.0, np.inf]])
    passages = np.array([[3, 1, 2, 0], [0, 2, 1, -1]])
    assert levels_of(passages, distances).tolist() == [[0, 0, 1, 2], [0, 1, 1, 2]]


def test_a_result_has_the_expected_figure_and_the_range(tmp_path: Path) -> None:
    collection = tied_task(tmp_path)
    data = dataset(tmp_path)
    tied = type(data)("tied", data.path, {"tied": collection}, None, ())
    found = evaluated(collection, tmp_path, robustness=True)
    result = write_results(tmp_path / "results", entry(), tied, {"tied": found}, {})
    ties = result.ties
    assert ties is not None
    assert 0 < ties["queries"] <= len(collection.queries)
    of_ndcg = ties["metrics"]["ndcg@10"]
    assert of_ndcg["low"] < result.metrics["ndcg@10"] < of_ndcg["high"]
    assert of_ndcg["low"] < of_ndcg["expected"] < of_ndcg["high"]
    binary = result.robustness_ties["binary"]  # signs of one dimension: nearly all passages are equals
    assert binary["low"] <= (result.robustness["binary"] or 0) <= binary["high"]
    assert "greater id first" in result.rules["ties"]
