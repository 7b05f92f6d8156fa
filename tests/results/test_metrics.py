"""Every metric against trec_eval, query by query, and where they differ from what is often computed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval

from ragcun_cli.results.metrics import CUTS, NDCG_CUTS, Judgements, means, score


def random_task(seed: int, depth: int = 200) -> tuple[list[dict[int, int]], np.ndarray]:
    """Grades from -1 to 3, queries without relevant or without retrieved passages among them."""
    rng = np.random.default_rng(seed)
    grades, ranked = [], []
    for query in range(40):
        row = rng.permutation(300)[:depth]
        judged = rng.choice(300, int(rng.integers(1, 30)), replace=False)
        levels = rng.integers(-1, 4, len(judged)) if query else np.zeros(len(judged), dtype=np.int64)
        grades.append({int(passage): int(level) for passage, level in zip(judged, levels, strict=True)})
        found = int(rng.integers(0, depth + 1)) if query % 3 == 0 else depth
        ranked.append(np.r_[row[:found], np.full(depth - found, -1)])
    return grades, np.stack(ranked)


def theirs(grades: list[dict[int, int]], ranked: np.ndarray, measures: set[str]) -> list[dict[str, float]]:
    qrels = {f"q{n}": {f"d{p}": g for p, g in each.items()} for n, each in enumerate(grades)}
    runs = {
        f"q{n}": {f"d{p}": float(len(row) - rank) for rank, p in enumerate(row.tolist()) if p >= 0}
        for n, row in enumerate(ranked)
    }
    scored = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate({q: run for q, run in runs.items() if run})
    return [scored.get(f"q{n}", {}) for n in range(len(grades))]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("depth", [5, 200, 1000])
def test_figures_are_those_of_trec_eval(seed: int, depth: int) -> None:
    grades, ranked = random_task(seed, min(depth, 300))
    ours = score(Judgements.of(grades), ranked)
    names = {f"ndcg@{cut}": (f"ndcg_cut.{cut}", f"ndcg_cut_{cut}") for cut in NDCG_CUTS}
    for mine, their in (("map", "map_cut"), ("recall", "recall"), ("precision", "P")):
        names |= {f"{mine}@{cut}": (f"{their}.{cut}", f"{their}_{cut}") for cut in CUTS}
    names |= {"map": ("map", "map"), "mrr": ("recip_rank", "recip_rank")}
    expected = theirs(grades, ranked, {asked for asked, _ in names.values()})
    for name, (_, answer) in names.items():
        figures = [each.get(answer, 0.0) for each in expected]
        np.testing.assert_allclose(ours[name], figures, atol=1e-9, rtol=0, err_msg=name)


def test_means_are_beirs() -> None:
    from beir.retrieval.evaluation import EvaluateRetrieval

    grades, ranked = random_task(1)
    ranked[ranked < 0] = 299  # BEIR leaves out queries without results
    ranked = np.stack([np.random.default_rng(n).permutation(300)[:200] for n in range(len(ranked))])
    qrels = {f"q{n}": {f"d{p}": g for p, g in each.items()} for n, each in enumerate(grades)}
    runs = {f"q{n}": {f"d{p}": -float(r) for r, p in enumerate(row.tolist())} for n, row in enumerate(ranked)}
    ours = means(score(Judgements.of(grades), ranked))
    ndcg, average, recall, precision = EvaluateRetrieval.evaluate(qrels, runs, [10, 100])
    assert ours["ndcg@10"] == pytest.approx(ndcg["NDCG@10"], abs=6e-6)  # BEIR rounds to five digits
    assert ours["map@100"] == pytest.approx(average["MAP@100"], abs=6e-6)
    assert ours["recall@100"] == pytest.approx(recall["Recall@100"], abs=6e-6)
    assert ours["precision@10"] == pytest.approx(precision["P@10"], abs=6e-6)
    relevant = {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}  # BEIR divides by zero
    some = {query: runs[query] for query in relevant}
    capped = EvaluateRetrieval.evaluate_custom(relevant, some, [100], metric="recall_cap")
    assert ours["capped_recall@100"] * len(qrels) / len(some) == pytest.approx(capped["R_cap@100"], abs=1e-4)
    holes = EvaluateRetrieval.evaluate_custom(qrels, runs, [10], metric="hole")
    judged_anywhere = {passage for each in grades for passage in each}
    assert holes["Hole@10"] == pytest.approx(
        np.mean([sum(p not in judged_anywhere for p in row[:10].tolist()) / 10 for row in ranked]), abs=6e-6
    )


def test_gains_are_linear_in_the_grade() -> None:
    scores = score(Judgements.of([{0: 3, 1: 1}]), np.array([[1, 0]]))
    expected = (1 / math.log2(2) + 3 / math.log2(3)) / (3 / math.log2(2) + 1 / math.log2(3))
    assert scores["ndcg@10"][0] == pytest.approx(expected)


def test_a_query_without_results_scores_zero_and_counts() -> None:
    scores = score(Judgements.of([{0: 1}, {1: 1}]), np.array([[0], [-1]]))
    assert scores["ndcg@10"].tolist() == [1.0, 0.0]
    assert means(scores)["mrr"] == 0.5


def test_a_judged_passage_that_the_corpus_lacks_is_never_found() -> None:
    scores = score(Judgements.of([{0: 1}], [[1, 0]]), np.array([[0, 3, -1]]))
    assert scores["recall@100"][0] == 0.5
    assert scores["ndcg@1"][0] == 1.0
    assert scores["judged@10"][0] == 0.5  # one of the two that were returned


def test_the_order_given_is_the_order_scored() -> None:
    """trec_eval alone would sort equal scores by descending id, and lose distances that float32 cannot tell apart."""
    assert score(Judgements.of([{0: 1}]), np.array([[0, 25]]))["mrr"][0] == 1.0
    assert score(Judgements.of([{25: 1}]), np.array([[0, 25]]))["mrr"][0] == 0.5


def test_capped_recall_can_reach_one_where_recall_cannot() -> None:
    grades = dict.fromkeys(range(40), 1)
    scores = score(Judgements.of([grades]), np.arange(100)[None, :])
    assert (scores["recall@10"][0], scores["capped_recall@10"][0]) == (0.25, 1.0)


def test_the_metrics_by_name() -> None:
    cuts = (1, 3, 5, 10, 100, 1000)
    expected = {f"{name}@{cut}" for name in ("map", "recall", "precision") for cut in cuts}
    expected |= {f"ndcg@{cut}" for cut in cuts[:5]} | {"capped_recall@10", "capped_recall@100", "map", "mrr"}
    assert set(score(Judgements.of([{0: 1}]), np.array([[0]]))) == expected | {"mrr@10", "judged@10"}


@pytest.mark.parametrize(("rank", "expected"), [(1, 1.0), (2, 0.5), (10, 0.1), (11, 0.0)])
def test_mrr_at_ten_is_the_first_hits_and_nothing_behind_the_tenth_rank(rank: int, expected: float) -> None:
    ranked = np.arange(1, 13)
    ranked[rank - 1] = 0
    found = score(Judgements.of([{0: 1}]), ranked[None])
    assert found["mrr@10"][0] == pytest.approx(expected, abs=1e-15)
    assert found["mrr"][0] == pytest.approx(1 / rank, abs=1e-15)


def test_judged_at_ten_counts_ten_ranks_and_any_grade() -> None:
    ranked = np.arange(12)[None]
    assert score(Judgements.of([{0: 1, 9: 0, 10: 2}]), ranked)["judged@10"][0] == 0.2
    assert score(Judgements.of([{0: 1, 1: -1, 20: 2}]), ranked[:, :4])["judged@10"][0] == 0.5
    assert score(Judgements.of([{0: 1}]), np.array([[-1, -1]]))["judged@10"][0] == 0


def test_the_greatest_passage_number_may_be_judged_or_ranked_alone() -> None:
    assert score(Judgements.of([{7: 1}]), np.array([[7]]))["mrr"][0] == 1
    assert score(Judgements.of([{9: 1}]), np.array([[7]]))["mrr"][0] == 0
    assert score(Judgements.of([{3: 1}], [[1]]), np.array([[7, 3]]))["recall@10"][0] == 0.5
