"""Retrieval metrics by trec_eval's own code (pytrec_eval), one figure per query.

trec_eval keeps scores as float32 and breaks ties by descending id, so distances given as scores would lose
their order. A ranking is therefore handed over as k, k-1, ..., 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytrec_eval

# ragcun's name -> what to ask of trec_eval -> what it answers
MEASURES = {
    "ndcg@10": ("ndcg_cut.10", "ndcg_cut_10"),
    "recall@100": ("recall.100", "recall_100"),
    "map": ("map", "map"),
    "mrr": ("recip_rank", "recip_rank"),
}


def score(qrels: Mapping[str, Mapping[str, int]], rankings: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Metric -> query id -> figure between 0 and 1.

    qrels: query id -> passage id -> grade (nDCG gains are linear in it; above 0 counts as relevant).
    rankings: query id -> passage ids, best first. A judged query without a ranking scores 0 everywhere
    (`trec_eval -c`): leaving it out would raise the mean.
    """
    evaluator = pytrec_eval.RelevanceEvaluator(
        {query: dict(grades) for query, grades in qrels.items()}, {asked for asked, _ in MEASURES.values()}
    )
    runs = {
        query: {passage: float(len(ranked) - place) for place, passage in enumerate(ranked)}
        for query, ranked in rankings.items()
    }
    scored = evaluator.evaluate(runs)
    return {
        name: {query: float(scored[query][answer]) if query in scored else 0.0 for query in qrels}
        for name, (_, answer) in MEASURES.items()
    }


def means(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Metric -> mean over queries."""
    return {name: sum(by_query.values()) / len(by_query) for name, by_query in scores.items()}
