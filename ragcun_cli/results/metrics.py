"""Retrieval metrics on arrays of integers, one figure per query, equal to trec_eval's.

trec_eval itself wants a dictionary of dictionaries, which takes several times as long to build as to score, and keeps
scores as float32, so that close distances passed as scores would lose their order. Here a ranking is a row of
passage numbers, best first (ties by descending id, as in trec_eval: `evaluate.search`), and only the judged
passages in it are ever looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ragcun_cli.arrays import Figures, Numbers

NDCG_CUTS = (1, 3, 5, 10, 100)
CUTS = (1, 3, 5, 10, 100, 1000)
JUDGED_CUT = 10
CAPPED_CUTS = (10, 100)
NO_PASSAGE = -1
NOT_FOUND = 1 << 40  # the rank of a passage missing from a ranking, beyond any cut


@dataclass(frozen=True)
class Judgements:
    """Judged passages of n queries. query, passage, grade: (judgements,) int64, sorted by query.

    passage: a passage's number, or -1 for one that the corpus lacks: it counts as relevant but is never found.
    """

    queries: int
    query: Numbers
    passage: Numbers
    grade: Numbers

    @classmethod
    def of(cls, grades: Sequence[dict[int, int]], lost: Sequence[Sequence[int]] = ()) -> Judgements:
        """Make judgements. grades: passage -> grade, per query; lost: grades of unknown passages, per query."""
        query, passage, grade = [], [], []
        for number, of_query in enumerate(grades):
            unknown = list(lost[number]) if lost else []
            query += [number] * (len(of_query) + len(unknown))
            passage += [*of_query, *[NO_PASSAGE] * len(unknown)]
            grade += [*of_query.values(), *unknown]
        return cls(len(grades), *(np.array(each, dtype=np.int64) for each in (query, passage, grade)))


def score(judgements: Judgements, ranked: Numbers) -> dict[str, Figures]:
    """Return metric -> (n,) figures between 0 and 1.

    ranked: (n, depth) passages, best first, -1 where a query has no more. A query without results scores 0
    everywhere (`trec_eval -c`): leaving it out would raise the mean.

    nDCG's gain is the grade itself (trec_eval; the other convention is 2^grade - 1); a passage counts as relevant from
    grade 1. `map` and `mrr` see the whole ranking, `map@k` the first k. `judged@10` is the share of the first ten that
    anybody judged; `capped_recall@k` divides by min(k, relevant), as BEIR's paper does on TREC-COVID.
    """
    rank = _ranks(judgements, ranked)
    n = judgements.queries
    relevant = _per_query(judgements.query, judgements.grade > 0, n)
    found = rank < NOT_FOUND
    hit = found & (judgements.grade > 0)
    query, at = judgements.query[hit], rank[hit]
    order = np.lexsort((at, query))
    query, at = query[order], at[order]
    # For each hit, how many relevant passages rank above it.
    so_far = (
        np.arange(len(query)) - (np.cumsum(np.bincount(query, minlength=n)) - np.bincount(query, minlength=n))[query]
    )
    precision = (so_far + 1) / (at + 1)
    figures = _ndcg(judgements, rank)
    for cut in CUTS:
        inside = at < cut
        hits = _per_query(query, inside, n)
        figures[f"map@{cut}"] = _divided(_per_query(query, precision * inside, n), relevant)
        figures[f"recall@{cut}"] = _divided(hits, relevant)
        figures[f"precision@{cut}"] = hits / cut
        if cut in CAPPED_CUTS:
            figures[f"capped_recall@{cut}"] = _divided(hits, np.minimum(relevant, cut))
    figures["map"] = _divided(_per_query(query, precision, n), relevant)
    first = np.full(n, np.inf)
    np.minimum.at(first, query, at + 1)
    figures["mrr"] = 1 / first
    figures[f"mrr@{JUDGED_CUT}"] = np.where(first <= JUDGED_CUT, 1 / first, 0.0)
    returned = np.maximum((ranked[:, :JUDGED_CUT] >= 0).sum(axis=1), 1)
    figures[f"judged@{JUDGED_CUT}"] = _per_query(judgements.query, found & (rank < JUDGED_CUT), n) / returned
    return figures


def means(figures: dict[str, Figures]) -> dict[str, float]:
    """Return metric -> mean over queries."""
    return {name: float(values.mean()) for name, values in figures.items()}


def _ranks(judgements: Judgements, ranked: Numbers) -> Numbers:
    """Return the rank, from 0, of each judged passage; NOT_FOUND if it is not in the ranking."""
    ranks = np.full(len(judgements.query), NOT_FOUND, dtype=np.int64)
    largest = max(int(ranked.max(initial=0)), int(judgements.passage.max(initial=0)))
    # One table for all queries, written and cleared again: faster than searching the results for each passage.
    table = np.full(largest + 2, NOT_FOUND, dtype=np.int64)
    bounds = np.searchsorted(judgements.query, np.arange(judgements.queries + 1))
    places = np.arange(ranked.shape[1])
    for number in range(judgements.queries):
        start, stop = bounds[number], bounds[number + 1]
        row = ranked[number]
        table[row] = places
        table[NO_PASSAGE] = NOT_FOUND
        ranks[start:stop] = table[judgements.passage[start:stop]]
        table[row] = NOT_FOUND
    return ranks


def _ndcg(judgements: Judgements, rank: Numbers) -> dict[str, Figures]:
    n = judgements.queries
    gain = np.maximum(judgements.grade, 0).astype(np.float64)
    discounted = gain / np.log2(rank + 2.0)
    # The ideal ranking: each query's grades from high to low.
    order = np.lexsort((-gain, judgements.query))
    query = judgements.query[order]
    starts = np.searchsorted(judgements.query, np.arange(n))
    ideal_rank = np.arange(len(query)) - starts[query]
    ideal = gain[order] / np.log2(ideal_rank + 2.0)
    return {
        f"ndcg@{cut}": _divided(
            _per_query(judgements.query, discounted * (rank < cut), n),
            _per_query(query, ideal * (ideal_rank < cut), n),
        )
        for cut in NDCG_CUTS
    }


def _per_query(query: Numbers, values: npt.NDArray[np.generic], n: int) -> Figures:
    return np.asarray(np.bincount(query, weights=values.astype(np.float64), minlength=n), dtype=np.float64)


def _divided(above: Figures, below: Figures) -> Figures:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)
