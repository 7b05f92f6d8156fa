"""How scores depend on ties: their mean and range over every order of equally distant passages.

The score itself follows trec_eval's rule, which puts the greater id first. That order says nothing about the model, so
others are kept beside it: the expected figure over all orders, each equally likely (McSherry & Najork,
ECIR 2008), and the figures of the worst and the best order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ragcun_cli.arrays import Figures, Numbers
from ragcun_cli.results.metrics import CAPPED_CUTS, CUTS, JUDGED_CUT, NDCG_CUTS, NO_PASSAGE, Judgements, score

SPARE = 24  # ranks beyond the depth, so that ties at the last rank are seen together
ROUNDING = 1e-12  # figures of two orders that differ by less count as equal
UNAFFECTED = frozenset({f"judged@{JUDGED_CUT}"})  # says what was judged, not how good a ranking is


@dataclass(frozen=True)
class Ties:
    """What ties change. queries: how many have a figure that depends on them. open: how many whose last tie goes beyond
    what was ranked. expected, low, high: metric -> mean over queries, for the mean, worst and best order.
    """

    queries: int
    open: int
    expected: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]


def levels_of(passages: Numbers, distances: Figures) -> Numbers:
    """Number each query's distinct distances from 0; return (n, depth) the number of each rank. Ties share one.

    passages: (n, depth), -1 where there is none. distances: (n, depth), ascending.
    """
    levels = np.zeros(passages.shape, dtype=np.int64)
    levels[:, 1:] = np.cumsum(distances[:, 1:] != distances[:, :-1], axis=1)
    return levels


def measure_ties(
    judgements: Judgements, passages: Numbers, levels: Numbers, depth: int, figures: dict[str, Figures]
) -> Ties | None:
    """Measure what ties change; None if their order changes no figure.

    Args:
        passages, levels: (n, >= depth) rankings, as far as they are known.
        depth: ranks that count.
        figures: what the rankings score under trec_eval's rule, metric -> (n,).
    """
    n = judgements.queries
    gains = _gains(judgements, passages)
    tied = (levels[:, 1:] == levels[:, :-1]) & (passages[:, 1:] != NO_PASSAGE)
    uneven = tied & (gains[:, 1:] != gains[:, :-1])
    some = np.flatnonzero(uneven.any(axis=1))
    if not len(some):
        return None
    worst, best = passages.copy(), passages.copy()
    for query in some.tolist():
        worst[query] = passages[query][np.lexsort((gains[query], levels[query]))]
        best[query] = passages[query][np.lexsort((-gains[query], levels[query]))]
    low, high = score(judgements, worst[:, :depth]), score(judgements, best[:, :depth])
    names = [name for name in figures if name not in UNAFFECTED]
    expected = {name: figures[name].copy() for name in names}
    ideal = _ideal(judgements)
    relevant = np.bincount(judgements.query, weights=judgements.grade > 0, minlength=n)
    for query in some.tolist():
        there = passages[query] != NO_PASSAGE
        means = _expected(gains[query][there], levels[query][there], depth, ideal[query], int(relevant[query]))
        for name, value in means.items():
            expected[name][query] = value
    affected = np.zeros(n, dtype=bool)
    for name in names:
        affected |= high[name] - low[name] > ROUNDING
    if not affected.any():
        return None
    goes_on = 0
    if passages.shape[1] > depth:  # otherwise every passage has a rank
        goes_on = int(((levels[:, depth - 1] == levels[:, -1]) & (passages[:, -1] != NO_PASSAGE)).sum())
    return Ties(
        int(affected.sum()),
        goes_on,
        *({name: float(each[name].mean()) for name in names} for each in (expected, low, high)),
    )


def _gains(judgements: Judgements, passages: Numbers) -> Figures:
    """Return (n, depth) the gain of each ranked passage: its grade, or 0 if unjudged or judged irrelevant."""
    gains = np.zeros(passages.shape)
    bounds = np.searchsorted(judgements.query, np.arange(judgements.queries + 1))
    for query in range(judgements.queries):
        part = slice(bounds[query], bounds[query + 1])
        wanted = (judgements.grade[part] > 0) & (judgements.passage[part] != NO_PASSAGE)
        known, grades = judgements.passage[part][wanted], judgements.grade[part][wanted]
        order = np.argsort(known)
        if len(known):
            at = np.minimum(np.searchsorted(known[order], passages[query]), len(known) - 1)
            found = known[order][at] == passages[query]
            gains[query][found] = grades[order][at][found]
    return gains


def _ideal(judgements: Judgements) -> list[Figures]:
    """Return, for each query, the gains of the best possible ranking."""
    bounds = np.searchsorted(judgements.query, np.arange(judgements.queries + 1))
    return [
        np.sort(np.maximum(judgements.grade[start:stop], 0))[::-1].astype(np.float64)
        for start, stop in itertools.pairwise(bounds)
    ]


def _expected(gains: Figures, levels: Numbers, depth: int, ideal: Figures, relevant: int) -> dict[str, float]:
    """Return metric -> mean over all orders of ties, for one query. gains, levels: by rank."""
    hit = (gains > 0).astype(np.float64)
    gain, chance, precision = np.zeros(len(gains)), np.zeros(len(gains)), np.zeros(len(gains))
    first = 0.0
    first_in_ten = 0.0
    found = 0
    for start, stop in _groups(levels):
        size, hits = stop - start, int(hit[start:stop].sum())
        gain[start:stop], chance[start:stop] = gains[start:stop].mean(), hits / size
        # The i-th place of the group holds a hit with probability hits / size, and then (i - 1) of the other
        # size - 1 passages precede it.
        before = np.arange(size) * ((hits - 1) / (size - 1) if size > 1 else 0.0)
        precision[start:stop] = hits / size * (found + 1 + before) / np.arange(start + 1, stop + 1)
        if hits and not found:
            ranks, chances = np.arange(start + 1, stop + 1), _chance_of_first(size, hits)
            first = float((chances / ranks)[ranks <= depth].sum())
            first_in_ten = float((chances / ranks)[ranks <= min(JUDGED_CUT, depth)].sum())
        found += hits
    discount = np.log2(np.arange(2, max(len(gains), len(ideal)) + 2))
    figures = {"map": _share(precision[:depth].sum(), relevant), "mrr": first, f"mrr@{JUDGED_CUT}": first_in_ten}
    for cut in NDCG_CUTS:
        best = (ideal[:cut] / discount[: len(ideal[:cut])]).sum()
        seen = gain[: min(cut, depth)]
        figures[f"ndcg@{cut}"] = _share((seen / discount[: len(seen)]).sum(), best)
    for cut in CUTS:
        hits_in = chance[: min(cut, depth)].sum()
        figures[f"map@{cut}"] = _share(precision[: min(cut, depth)].sum(), relevant)
        figures[f"recall@{cut}"] = _share(hits_in, relevant)
        figures[f"precision@{cut}"] = float(hits_in / cut)
        if cut in CAPPED_CUTS:
            figures[f"capped_recall@{cut}"] = _share(hits_in, min(relevant, cut))
    return figures


def _groups(levels: Numbers) -> Iterator[tuple[int, int]]:
    """Yield where each run of ties begins and ends."""
    cuts = [0, *(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(levels)]
    yield from itertools.pairwise(cuts)


def _chance_of_first(size: int, hits: int) -> Figures:
    """Return (size,) the probability that the first of `hits` among `size` in random order is at each place."""
    left = size - np.arange(size)
    here = hits / left
    misses = np.concatenate([[1.0], np.cumprod(np.maximum(1 - here, 0))[:-1]])
    return np.asarray(misses * np.minimum(here, 1.0))


def _share(above: float, below: float) -> float:
    return float(above / below) if below > 0 else 0.0
