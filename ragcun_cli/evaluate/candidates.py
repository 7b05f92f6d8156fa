"""The best scores of each query so far, block by block, without looking at most of a block's scores.

A product's minima over 32 columns say which of them hold a score that could be among the best; only these are read
again. Sorting all scores of each block would take as long as the product itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

COLUMNS = 32  # per minimum
NO_PLACE = -1
MOST_WAITING = 2  # times `kept`, for all queries together
MOST_OF_ONE = 4  # times `kept`, for one query: if there are more, only the best are looked at
WAITING_BYTES = 64  # of one score with its query and place, and the copies that sorting makes


def bytes_of_merging(kept: int) -> int:
    """Return the most bytes that one query's candidates take while new ones are merged."""
    return kept * (1 + MOST_OF_ONE) * WAITING_BYTES


class Best:
    """For each of n queries, the scores that beat its limit, with the places they belong to; at most `kept` of them.

    New ones wait until there are many: sorting them costs more than finding them.
    """

    def __init__(self, limits: Tensor, kept: int) -> None:
        """Start empty. limits: (n,) what a score must be below; falls to the worst kept one once there are `kept`."""
        self.limits = limits
        self.kept = kept
        self.scores = torch.empty((len(limits), 0), device=limits.device)
        self.places = torch.empty((len(limits), 0), dtype=torch.long, device=limits.device)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []  # query, place, score

    def update(self, scores: Tensor, start: int) -> None:
        """Take in scores, (n, columns), of the passages at places `start` and following; lower is nearer."""
        # Flat indices throughout: indexing by rows and columns takes half as long again.
        width = scores.shape[1]
        columns = scores.view(-1, COLUMNS)
        below = columns.amin(dim=1).view(len(scores), -1) < self.limits[:, None]
        group = below.view(-1).nonzero()[:, 0]
        values = columns.index_select(0, group)
        limits = self.limits.index_select(0, group // (width // COLUMNS))
        found = (values < limits[:, None]).view(-1).nonzero()[:, 0]
        at = group.index_select(0, found // COLUMNS) * COLUMNS + found % COLUMNS
        self._waiting.append((at // width, at % width + start, values.view(-1).index_select(0, found)))
        if sum(len(each) for each, _, _ in self._waiting) > MOST_WAITING * self.kept * len(scores):
            self.merge()

    def merge(self) -> None:
        """Merge the waiting scores with the kept ones."""
        if not self._waiting:
            return
        query, places, scores = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        counts = torch.bincount(query, minlength=len(self.scores))
        if int(counts.max()) > MOST_OF_ONE * self.kept:
            by_score = scores.argsort()
            query, places, scores = query[by_score], places[by_score], scores[by_score]
        query, order = query.sort(stable=True)
        # As a matrix, each query's new ones beside its old ones.
        rank = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
        most = max(min(int(counts.max()), MOST_OF_ONE * self.kept), self.kept - self.scores.shape[1])
        query, order, slot = (each[rank < most] for each in (query, order, rank + self.scores.shape[1]))
        wide = torch.nn.functional.pad(self.scores, (0, most), value=math.inf)
        wide_places = torch.nn.functional.pad(self.places, (0, most), value=NO_PLACE)
        wide[query, slot] = scores[order]
        wide_places[query, slot] = places[order]
        best = wide.topk(self.kept, dim=1, largest=False, sorted=False)
        self.scores, self.places = best.values, wide_places.gather(1, best.indices)
        self.limits = torch.minimum(self.limits, self.scores.amax(dim=1))
