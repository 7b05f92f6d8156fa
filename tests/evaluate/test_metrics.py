"""Metrics against trec_eval and BEIR, and where they differ from what is often computed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval

from ragcun_cli.evaluate.metrics import means, score


def random_task(seed: int) -> tuple[dict[str, dict[str, int]], dict[str, list[str]]]:
    rng = np.random.default_rng(seed)
    qrels, rankings = {}, {}
    for query in range(25):
        passages = [f"d{number}" for number in rng.permutation(300)]
        judged = rng.choice(300, 12, replace=False)
        grades = rng.integers(0, 4, 12)
        qrels[f"q{query}"] = {f"d{number}": int(grade) for number, grade in zip(judged, grades, strict=True)}
        rankings[f"q{query}"] = passages[:200]
    return qrels, rankings


def test_figures_are_those_of_trec_eval_per_query() -> None:
    qrels, rankings = random_task(0)
    runs = {query: {p: 1.0 / (rank + 1) for rank, p in enumerate(ranked)} for query, ranked in rankings.items()}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100", "map", "recip_rank"}).evaluate(runs)
    ours = score(qrels, rankings)
    for query in qrels:
        for name, their_name in (
            ("ndcg@10", "ndcg_cut_10"), ("recall@100", "recall_100"), ("map", "map"), ("mrr", "recip_rank"),
        ):  # fmt: skip
            assert ours[name][query] == pytest.approx(theirs[query][their_name], abs=1e-9)


def test_means_are_beirs() -> None:
    from beir.retrieval.evaluation import EvaluateRetrieval

    qrels, rankings = random_task(1)
    runs = {query: {p: float(-rank) for rank, p in enumerate(ranked)} for query, ranked in rankings.items()}
    ndcg, _, recall, _ = EvaluateRetrieval.evaluate(qrels, runs, [10, 100])
    ours = means(score(qrels, rankings))
    assert ours["ndcg@10"] == pytest.approx(ndcg["NDCG@10"], abs=6e-6)  # BEIR rounds to five digits
    assert ours["recall@100"] == pytest.approx(recall["Recall@100"], abs=6e-6)


def test_gains_are_linear_in_the_grade() -> None:
    scores = score({"q": {"a": 3, "b": 1}}, {"q": ["b", "a"]})
    expected = (1 / math.log2(2) + 3 / math.log2(3)) / (3 / math.log2(2) + 1 / math.log2(3))
    assert scores["ndcg@10"]["q"] == pytest.approx(expected)


def test_a_query_without_results_scores_zero_and_counts() -> None:
    scores = score({"q1": {"a": 1}, "q2": {"b": 1}}, {"q1": ["a"]})
    assert scores["ndcg@10"] == {"q1": 1.0, "q2": 0.0}
    assert means(scores)["mrr"] == 0.5


def test_the_order_given_is_the_order_scored() -> None:
    """trec_eval alone would sort equal scores by descending id, and lose distances that float32 cannot tell apart."""
    assert score({"q": {"a": 1}}, {"q": ["a", "z"]})["mrr"]["q"] == 1.0
    assert score({"q": {"z": 1}}, {"q": ["a", "z"]})["mrr"]["q"] == 0.5
