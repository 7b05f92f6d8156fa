"""Exact Euclidean search: the k nearest passages of each query, however little memory there is. Among ties the
passage with the greater number, that is the greater id, comes first: trec_eval's rule.

1. Subtract the passages' mean from both sides: distances stay, and |p|^2 - 2 q.p no longer cancels the digits that
   decide (otherwise embeddings that share a large mean get a wrong top 10, as in faiss and torch.cdist).
2. One matrix product per block of passages, in the fastest precision, keeps the k + spare best of each query. A block's
   minima over 32 columns say where to look: nothing else in it is read again (`evaluate.candidates`).
3. The candidates' distances are computed again directly and sorted exactly (`evaluate.exact_order`).
4. The product's error bound then proves for each query that no passage outside its candidates can belong among its k
   nearest. A query without that proof is searched again: all passages that the float32 product does not rule out
   are compared directly (`_Search._search_again`).

The answer is the order of the float64 distances between the float32 embeddings, so it does not depend on blocks,
batches, processes or the product's precision.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ragcun_cli.arrays import Figures, Flags, Numbers, Vectors
from ragcun_cli.evaluate.candidates import COLUMNS, Best, bytes_of_merging
from ragcun_cli.evaluate.exact_order import nearest_first, squared_distances
from ragcun_cli.evaluate.precision import UNIT, Precision
from ragcun_cli.evaluate.vectors import PassageVectors

DEFAULT_MEMORY = 1 << 30  # bytes
SAFE_EXPONENT = 30  # embeddings within 2^-30 and 2^30 have squares and sums that float32 holds
SAMPLED = 4096  # passages for the first guess of a limit
SAMPLED_QUERIES = 256  # at a time
GUESS_DEVIATIONS = 4  # by which a guess exceeds the expected value: one query in some 30,000 has too few below it
# The most passages and queries per product. On a CPU the product stays in its cache: the fastest of 2,048 to 49,152
# passages and 128 to 1,000 queries. A GPU wants large ones, since a block takes longer to arrive than to multiply.
LARGEST_PRODUCT = {"cpu": (4096, 512), "cuda": (65_536, 4096), "mps": (16_384, 1024)}
SMALLEST_BLOCK = 1024
# The product may misorder close neighbours around rank k, so this many more are kept.
FEWEST_SPARE = 64
SPARE_SHARE = 16  # or k divided by this, if that is more
CANDIDATE_BYTES = 128
MERGED_QUERIES = 1024  # at a time


@dataclass(frozen=True)
class Ranking:
    """For each query, the passages by increasing distance.

    passages: (queries, k) int64; distances: (queries, k) float64, squared Euclidean, to a relative error of
    `exact_order.DISTANCE_ERROR` where that is enough for the order. unproven: (queries,), which of them had to be
    searched again, since the product's error bound did not prove that no passage was missed.
    """

    passages: Numbers
    distances: Figures
    unproven: Flags


@dataclass(frozen=True)
class _Shape:
    """What fits into memory: passages and queries per product, queries that share a pass over the passages,
    passages of the sample, and pairs that are compared directly at a time.
    """

    block: int
    queries_per_product: int
    queries_per_pass: int
    sampled: int
    pairs: int


def search(
    queries: Vectors,
    passages: PassageVectors,
    k: int,
    *,
    memory: int = DEFAULT_MEMORY,
    device: str = "cpu",
    precision: Precision | None = None,
    on_share: Callable[[float], None] | None = None,
) -> Ranking:
    """Find the k nearest passages of each query (all of them if there are fewer).

    Args:
        queries: (n, D) float32, n >= 1.
        passages: m >= 1 embeddings of D dimensions. Among equally distant ones the greater number comes first.
        memory: bytes for everything this function allocates, beyond the queries and the answer.
        device: where products are computed.
        precision: of the product; float32 by default.
        on_share: called with the share of the work done, from 0 to 1.
    """
    precision = precision or Precision.float32()
    exponent = _exponent(queries, passages)
    if exponent:
        scale = _Scale(2.0**-exponent)
        queries, passages = queries * np.float32(scale.factor), passages.mapped(scale)
        found = search(queries, passages, k, memory=memory, device=device, precision=precision, on_share=on_share)
        return Ranking(found.passages, found.distances * 4.0**exponent, found.unproven)
    k = min(k, len(passages))
    kept = min(k + max(FEWEST_SPARE, k // SPARE_SHARE), len(passages))
    shape = _shape(len(queries), passages.dimensions, kept, memory, torch.device(device).type)
    among = _Search(passages, k, kept, passages.mean().astype(np.float32), shape, device, precision)
    parts = []
    for start in range(0, len(queries), shape.queries_per_pass):
        group = queries[start : start + shape.queries_per_pass]
        parts.append(among.nearest(group, _part_of(on_share, start, len(group), len(queries), len(passages))))
    return Ranking(
        np.concatenate([part.passages for part in parts]),
        np.concatenate([part.distances for part in parts]),
        np.concatenate([part.unproven for part in parts]),
    )


@dataclass(frozen=True)
class _Scale:
    """Multiplies by a power of two: exact, so that no order changes."""

    factor: float

    def __call__(self, vectors: Tensor) -> Tensor:
        return vectors * self.factor


def _exponent(queries: Vectors, passages: PassageVectors) -> int:
    """Return the power of two by which embeddings are too large or too small to square in float32; 0 for none."""
    some = passages.take(np.linspace(0, len(passages) - 1, min(len(passages), SMALLEST_BLOCK)).astype(np.int64))
    magnitude = max(float(np.abs(queries).max()), float(some.abs().max()))
    exponent = math.frexp(magnitude)[1]
    return exponent if abs(exponent) > SAFE_EXPONENT and magnitude > 0 else 0


def _part_of(
    on_share: Callable[[float], None] | None, first: int, group: int, queries: int, passages: int
) -> Callable[[int], None]:
    """Return a callback for a group of queries, called with the number of passages compared so far."""

    def report(done: int) -> None:
        if on_share is not None:
            on_share((first + group * min(done, passages) / passages) / queries)

    return report


def merge(queries: Vectors, passages: PassageVectors, k: int, found: list[Ranking]) -> Ranking:
    """Merge the k nearest of each part of the passages, found by other processes, into the k nearest of all."""
    place_of = np.empty(len(passages), dtype=np.int64)
    place_of[passages.rows] = np.arange(len(passages))
    places = place_of[np.concatenate([each.passages for each in found], axis=1)]
    k = min(k, len(passages))
    parts = [
        nearest_first(queries[start : start + MERGED_QUERIES], passages, places[start : start + MERGED_QUERIES], k)
        for start in range(0, len(queries), MERGED_QUERIES)
    ]
    rows, distances = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Ranking(rows, distances, np.logical_or.reduce([each.unproven for each in found]))


def _shape(queries: int, dimensions: int, kept: int, memory: int, device: str) -> _Shape:
    most_passages, most_queries = LARGEST_PRODUCT[device]
    # For each candidate its score and place, and what exact ordering needs: copies and where they come from.
    queries_per_pass = max(1, min(queries, memory // 3 // (kept * CANDIDATE_BYTES)))
    # A block as read, its centred copy and what the product makes of it.
    block = min(most_passages, max(SMALLEST_BLOCK, memory // 4 // (dimensions * 4 * 3))) // COLUMNS * COLUMNS
    # The product itself, the columns that are looked at, and what waits to be merged.
    per_query = block * 4 * 2 + bytes_of_merging(kept)
    queries_per_product = max(1, min(most_queries, queries_per_pass, memory // 4 // per_query))
    sampled = min(SAMPLED, max(SMALLEST_BLOCK, memory // 8 // (dimensions * 4 * 2)))
    pairs = max(1, memory // 8 // (dimensions * 32))
    return _Shape(block, queries_per_product, queries_per_pass, sampled, pairs)


@dataclass(frozen=True)
class _Search:
    """A search for the k nearest among these passages. kept: candidates of each query; centre: (D,) the passages' mean;
    precision: of the product.
    """

    passages: PassageVectors
    k: int
    kept: int
    centre: Vectors
    shape: _Shape
    device: str
    precision: Precision

    def nearest(self, queries: Vectors, report: Callable[[int], None]) -> Ranking:
        """Search for queries that share a pass over the passages; `report(count)` is called as these are compared."""
        centred = torch.from_numpy(queries - self.centre)
        ready = self.precision.prepare(centred.to(self.device))
        best = [Best(part, self.kept) for part in self._first_limits(ready).split(self.shape.queries_per_product)]
        radius = 0.0
        for start, block, norms in self._centred_blocks():
            radius = max(radius, _greatest(norms))
            prepared = self.precision.prepare(block)
            for state, part in zip(best, ready.split(self.shape.queries_per_product), strict=True):
                state.update(self.precision.product(norms, part, prepared, out=self._room(part, block)), start)
            report(start + len(block))
        for state in best:
            state.merge()
        places = torch.cat([state.places for state in best]).cpu().numpy()
        rows, distances = nearest_first(queries, self.passages, places, self.k)
        unproven = np.zeros(len(queries), dtype=bool)
        if self.kept == len(self.passages):
            return Ranking(rows, distances, unproven)
        outside = torch.cat([state.limits for state in best]).cpu().double().numpy()
        lengths = centred.double().norm(dim=1).numpy()
        reach = np.sqrt(distances[:, -1])
        # No passage farther from the centre than this is among the k nearest, by the triangle inequality.
        relevant = np.minimum(radius, (lengths + reach) * (1 + 1e-6))
        slack = self.precision.error(lengths, relevant, queries.shape[1])
        unproven = distances[:, -1] >= outside + lengths**2 - slack
        if unproven.any() and _all_alike(self.passages):
            rows[:] = np.sort(self.passages.rows)[::-1][: self.k]
            distances[:] = squared_distances(queries, self.passages.take(np.zeros(1, dtype=np.int64)))[:, None]
        elif unproven.any():
            again = self._search_again(queries[unproven], distances[unproven, -1])
            rows[unproven], distances[unproven] = again
        return Ranking(rows, distances, unproven)

    def _first_limits(self, queries: Tensor) -> Tensor:
        """Guess from sampled passages (n,) scores that `kept` passages or somewhat more are below.

        Without it each block's best would have to be merged with earlier ones, which took as long as looking. A query
        whose limit turns out too low is one with an unproven answer.
        """
        sampled, passages = self.shape.sampled, self.passages
        if len(passages) <= max(sampled, self.kept):
            return torch.full((len(queries),), math.inf, device=queries.device)
        places = np.linspace(0, len(passages) - 1, sampled).astype(np.int64)
        centre = torch.from_numpy(self.centre).to(queries.device)
        sample = self.precision.prepare(passages.take(places).to(queries.device) - centre)
        expected = self.kept * sampled / len(passages)
        rank = min(sampled, math.ceil(expected + GUESS_DEVIATIONS * expected**0.5) + 1)
        norms = torch.linalg.vecdot(sample, sample)
        return torch.cat(
            [
                self.precision.product(norms, part, sample)
                .topk(rank, dim=1, largest=False, sorted=False)
                .values.amax(dim=1)
                for part in queries.split(SAMPLED_QUERIES)
            ]
        )

    def _search_again(self, queries: Vectors, bounds: Figures) -> tuple[Numbers, Figures]:
        """Directly compare every passage that could be among the k nearest.

        bounds: (n,) squared distances that the k-th nearest does not exceed. They fall as nearer passages are found.
        """
        exact = Precision.float32()
        centred = torch.from_numpy(queries - self.centre)
        lengths = centred.double().norm(dim=1).numpy()
        found = _Found(queries, self.passages, self.k, bounds.copy())
        ready = centred.to(self.device)
        for start, block, norms in self._centred_blocks():
            radius = _greatest(norms)
            for first in range(0, len(queries), self.shape.queries_per_product):
                part = slice(first, first + self.shape.queries_per_product)
                limits = found.limits[part]
                slack = exact.error(lengths[part], np.minimum(radius, lengths[part] + np.sqrt(limits)), block.shape[1])
                # A little more, for rounding it to float32: one passage too many costs nothing, one too few is wrong.
                allowed = torch.from_numpy(limits * (1 + 8 * UNIT) - lengths[part] ** 2 + 2 * slack)
                scores = exact.product(norms, ready[part], block, out=self._room(ready[part], block))
                near = (scores <= allowed.float().to(self.device)[:, None]).nonzero().cpu().numpy()
                for some in np.array_split(near, len(near) // self.shape.pairs + 1):
                    found.add(some[:, 0] + first, some[:, 1] + start)
        return found.answer()

    def _centred_blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (first place, centred vectors, squared norms) on the device; short blocks are padded to whole columns.

        Padding has an infinite norm, so that it is never near.
        """
        middle = torch.from_numpy(self.centre).to(self.device)
        for start, values in self.passages.blocks(self.shape.block):
            block = values.to(self.device).sub_(middle)
            norms = torch.linalg.vecdot(block, block)
            lacking = -len(block) % COLUMNS
            if lacking:
                block = torch.nn.functional.pad(block, (0, 0, 0, lacking))
                norms = torch.nn.functional.pad(norms, (0, lacking), value=math.inf)
            yield start, block, norms

    def _room(self, queries: Tensor, block: Tensor) -> Tensor:
        """Return the buffer for a product, (queries, block): the same memory each time."""
        return self._buffer[: len(queries) * len(block)].view(len(queries), len(block))

    @functools.cached_property
    def _buffer(self) -> Tensor:
        return torch.empty(self.shape.queries_per_product * (self.shape.block + COLUMNS), device=self.device)


@dataclass(frozen=True)
class _Found:
    """The nearest passages so far of queries that are searched again. limits: (n,) squared distances that the k-th
    nearest does not exceed; they fall.
    """

    queries: Vectors
    passages: PassageVectors
    k: int
    limits: Figures
    nearest: dict[int, tuple[Numbers, Figures]] = field(default_factory=dict)

    def add(self, query: Numbers, place: Numbers) -> None:
        """Compare pairs of a query and a passage directly; both (pairs,)."""
        if not len(query):
            return
        unique, back = np.unique(place, return_inverse=True)
        distances = squared_distances(self.queries[query], self.passages.take(unique)[torch.from_numpy(back)])
        for number in np.unique(query).tolist():
            here = query == number
            rows, values = self.nearest.get(number, (np.empty(0, dtype=np.int64), np.empty(0)))
            rows = np.concatenate([rows, self.passages.rows[place[here]]])
            values = np.concatenate([values, distances[here]])
            order = np.lexsort((-rows, values))[: self.k]
            self.nearest[number] = rows[order], values[order]
            if len(order) == self.k:
                self.limits[number] = min(self.limits[number], values[order[-1]])

    def answer(self) -> tuple[Numbers, Figures]:
        """Return rows and distances, (n, k) each."""
        found = [self.nearest[number] for number in range(len(self.queries))]
        return np.stack([rows for rows, _ in found]), np.stack([values for _, values in found])


def _greatest(norms: Tensor) -> float:
    """Return the length of the longest vector, without the block's padding."""
    finite = norms[norms.isfinite()]
    return float(finite.max()) ** 0.5 if len(finite) else 0.0


def _all_alike(passages: PassageVectors) -> bool:
    """Whether the encoder has collapsed to one point: then the ids alone decide, and pairs need not be compared."""
    first = passages.take(np.zeros(1, dtype=np.int64))
    return all(bool((block == first).all()) for _, block in passages.blocks())
