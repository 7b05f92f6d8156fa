"""The exact order of candidates by distance: float32 where that is certain, float64 where neighbours are too close."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ragcun_cli.arrays import Figures, Numbers, Vectors
from ragcun_cli.evaluate.precision import UNIT
from ragcun_cli.evaluate.vectors import PassageVectors

# Relative error of a distance by `_sum_of_squares`: a rounding of the difference, which is squared, one of the square,
# one for each fold; the rest is float64. (A sum in float32 alone errs by up to 22 units, measured.)
FOLDS = 2
DISTANCE_ERROR = (4 + FOLDS) * UNIT
BUFFER_VALUES = 1 << 20  # pairs' vectors at a time: 2,048 of 512 dimensions, which stay in a cache


def nearest_first(queries: Vectors, passages: PassageVectors, places: Numbers, k: int) -> tuple[Numbers, Figures]:
    """Find the k nearest of each query's candidates: (n, k) passages and squared distances; among ties, the greater
    passage number first.

    places: (n, candidates), each candidate's place in `passages`, negative for none; candidates >= k.
    Where there are fewer than k, the last distances are infinite.
    """
    at = torch.from_numpy(places)
    distances = torch.full(at.shape, torch.inf, dtype=torch.float64)
    _fill(distances, (at.view(-1) >= 0).nonzero()[:, 0], queries, passages, at, torch.float32)
    first = distances.sort(dim=1)
    _fill(distances, _uncertain(first.values, first.indices, k), queries, passages, at, torch.float64)
    # Already nearly sorted, which numpy's stable sort exploits: it takes a fifth of the time of a fresh sort.
    order = first.indices.numpy()
    values = np.take_along_axis(distances.numpy(), order, axis=1)
    again = np.argsort(values, axis=1, kind="stable")
    values, order = (np.take_along_axis(each, again, axis=1) for each in (values, order))
    rows = passages.rows[np.take_along_axis(places, order, axis=1)]
    for query in np.flatnonzero((values[:, 1:] == values[:, :-1]).any(axis=1)).tolist():
        ties_by_row = np.lexsort((-rows[query], values[query]))
        rows[query], values[query] = rows[query][ties_by_row], values[query][ties_by_row]
    return rows[:, :k], values[:, :k]


def squared_distances(queries: Vectors, passages: Tensor) -> Figures:
    """Return sum (q - p)^2 of pairs, (n, D) each, in float64."""
    return torch.from_numpy(queries).double().sub_(passages).square_().sum(dim=1).numpy()


def _uncertain(values: Tensor, order: Tensor, k: int) -> Tensor:
    """Return flat numbers of the candidates whose neighbour in the order is too close for float32, and of each k-th."""
    close = (values.diff(dim=1) <= 2 * DISTANCE_ERROR * values[:, 1:]) & values[:, 1:].isfinite()
    marked = torch.zeros_like(values, dtype=torch.bool)
    marked[:, 1:] |= close
    marked[:, :-1] |= close
    marked[:, k - 1] = values[:, k - 1].isfinite()  # the search's proof starts from the k-th distance
    query, rank = marked.nonzero(as_tuple=True)
    return query * values.shape[1] + order[query, rank]


def _fill(
    distances: Tensor,
    numbers: Tensor,
    queries: Vectors,
    passages: PassageVectors,
    places: Tensor,
    dtype: torch.dtype,
) -> None:
    """Set the distances of these candidates (flat numbers), computed in `dtype`.

    Works in the order of the places: each shard is read once from front to back, whatever the queries ask for.
    """
    at, order = places.view(-1)[numbers].sort()
    numbers = numbers[order]
    asking = numbers // places.shape[1]
    every_query, flat, sorted_places = torch.from_numpy(queries), distances.view(-1), at.numpy()
    pairs = max(1, BUFFER_VALUES // max(passages.dimensions, queries.shape[1]))
    read, asked = torch.empty(pairs, passages.dimensions), torch.empty(pairs, queries.shape[1])
    wide = torch.empty(asked.shape, dtype=dtype)
    for start in range(0, len(at), pairs):
        part = slice(start, min(start + pairs, len(at)))
        count = part.stop - start
        found = passages.take(sorted_places[part], read[:count])
        # index_select into a buffer takes a fifth of the time of `every_query[asking]`.
        torch.index_select(every_query, 0, asking[part], out=asked[:count])
        difference = found if dtype == torch.float32 else wide[:count].copy_(found)
        flat[numbers[part]] = _sum_of_squares(difference.sub_(asked[:count]))


def _sum_of_squares(differences: Tensor) -> Tensor:
    """Return the sums of squares, (n,) float64, of differences (n, D), which are overwritten.

    Halves are first added to each other: torch sums into float64 value by value, which takes four times as long.
    """
    squares = differences.square_()
    for _ in range(FOLDS):
        half, odd = divmod(squares.shape[1], 2)
        if odd:
            break
        squares = squares[:, :half] + squares[:, half:]
    return squares.sum(dim=1, dtype=torch.float64)
