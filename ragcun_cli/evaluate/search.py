"""Exact Euclidean search: the k nearest passages of each query, ties in the order of the passages given.

1. Subtract the passages' mean from both sides: distances stay, and |q|^2 + |p|^2 - 2 q.p no longer cancels the
   digits that decide (an encoder whose embeddings share a large mean loses its top 10 otherwise).
2. Rank by the matrix product, block by block, keeping more candidates than asked.
3. Take the candidates' distances again directly, sum (q - p)^2, and sort by (distance, passage).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

QUERY_BLOCK = 256
PASSAGE_BLOCK = 16_384
SPARE_CANDIDATES = 32  # the matrix product in float32 may swap near neighbours around rank k


@dataclass(frozen=True)
class Ranking:
    """For each query the passages by rising distance.

    passages: (queries, k) int64, rows of the passage array; distances: (queries, k) float32, squared Euclidean.
    """

    passages: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]


def search(queries: npt.NDArray[np.float32], passages: npt.NDArray[np.float32], k: int) -> Ranking:
    """The k nearest passages of each query (all of them if there are fewer).

    queries: (n, D) float32, n >= 1; passages: (m, D) float32, m >= 1. Of equally distant passages the earlier row wins.
    """
    k = min(k, len(passages))
    centre = passages.mean(axis=0, dtype=np.float64).astype(np.float32)
    all_passages = torch.from_numpy(passages - centre)
    all_queries = torch.from_numpy(queries - centre)
    found = [_search_block(block, all_passages, k) for block in all_queries.split(QUERY_BLOCK)]
    return Ranking(
        torch.cat([rows for rows, _ in found]).numpy(),
        torch.cat([distances for _, distances in found]).numpy(),
    )


def _search_block(queries: Tensor, passages: Tensor, k: int) -> tuple[Tensor, Tensor]:
    candidates = _candidates(queries, passages, min(k + SPARE_CANDIDATES, len(passages)))
    # Ascending rows, then a stable sort by distance: equal distances stay in the order of the rows.
    candidates = candidates.sort(dim=1).values
    distances = torch.stack(
        [(passages[rows] - query).square().sum(1) for query, rows in zip(queries, candidates, strict=True)]
    )
    nearest = distances.sort(dim=1, stable=True)
    order = nearest.indices[:, :k]
    return candidates.gather(1, order), nearest.values[:, :k]


def _candidates(queries: Tensor, passages: Tensor, count: int) -> Tensor:
    best_scores = torch.empty((len(queries), 0))
    best_rows = torch.empty((len(queries), 0), dtype=torch.long)
    for start in range(0, len(passages), PASSAGE_BLOCK):
        block = passages[start : start + PASSAGE_BLOCK]
        # |q|^2 is the same for all passages of a query: it does not change their order.
        scores = torch.addmm(block.square().sum(1)[None, :], queries, block.T, alpha=-2)
        scores = torch.cat([best_scores, scores], dim=1)
        rows = torch.arange(start, start + len(block)).expand(len(queries), -1)
        rows = torch.cat([best_rows, rows], dim=1)
        best = scores.topk(min(count, scores.shape[1]), dim=1, largest=False, sorted=False)
        best_scores, best_rows = best.values, rows.gather(1, best.indices)
    return best_rows
