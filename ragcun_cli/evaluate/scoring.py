"""One model on one collection: search, score, measure what was searched."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ragcun_cli.data.collection import Collection
from ragcun_cli.data.registry import known_dataset
from ragcun_cli.errors import ModelError
from ragcun_cli.evaluate import geometry
from ragcun_cli.evaluate.embedding import Embedded
from ragcun_cli.evaluate.geometry import Geometry
from ragcun_cli.evaluate.isotropy import MINIMUM_TEXTS, measure_isotropy
from ragcun_cli.evaluate.metrics import NO_PASSAGE, Figures, Judgements, means, score
from ragcun_cli.evaluate.search import Ranking, search
from ragcun_cli.evaluate.transforms import (
    NO_TRANSFORM,
    ROBUSTNESS,
    Map,
    Transform,
    fitted,
    parse_transform,
    unit_length,
)
from ragcun_cli.evaluate.vectors import PassageVectors

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]  # texts -> (n, D) float32
# queries, passages, k -> the k nearest of each query
Search = Callable[[npt.NDArray[np.float32], PassageVectors, int], Ranking]

RANKING_DEPTH = 1000  # BEIR's: MAP and MRR see this many passages
ROBUSTNESS_DEPTH = 10
HEADLINE = ("ndcg@10", "recall@100", "map", "mrr")


@dataclass(frozen=True)
class Scheme:
    """How embeddings are compared: `euclidean` or `cosine`, after a transform.

    fit_on: what the transform's mean and covariance are of, `corpus` or the name of a file of training triples.
    """

    similarity: str = "euclidean"
    transform: Transform = NO_TRANSFORM
    fit_on: str = "corpus"

    @property
    def suffix(self) -> str:
        """What is added to a model's name, so that each scheme is a row of its own; empty for the model as it is."""
        transform = "" if self.transform.kind == "none" else f"+{self.transform.name.replace(':', '-')}"
        fit = "-on-train" if self.fit_on != "corpus" and self.transform.needs_fit else ""
        return transform + fit + ("+cosine" if self.similarity == "cosine" else "")


@dataclass(frozen=True)
class Evaluation:
    """What one model scored on one collection.

    metrics: name -> mean over queries. per_query: name -> (n,), in the order of the collection's queries. ranked:
    (n, depth) passages, best first, -1 where there are no more. geometry: None below four passages. robustness:
    transform -> nDCG@10 after it. unproven: queries that had to be searched a second time.
    """

    metrics: dict[str, float]
    per_query: dict[str, Figures]
    ranked: npt.NDArray[np.int64]
    geometry: Geometry | None
    robustness: dict[str, float]
    unproven: int


@dataclass(frozen=True)
class DevScores:
    """What a training run wants to know of its dev set."""

    metrics: dict[str, float]
    isoscore: float | None


def evaluate(
    embedded: Embedded,
    collection: Collection,
    scheme: Scheme,
    fit: PassageVectors | None,
    find: Search,
    robustness: bool,
    scratch: Path,
) -> Evaluation:
    """Score embeddings by exact search.

    Args:
        fit: the passages that `scheme.transform` is fitted on, None for the collection's own.
        find: the search.
        robustness: whether nDCG@10 is also taken after the transforms of `transforms.ROBUSTNESS`.
        scratch: where transformed passages are put for the time of the search, if they must be.

    Raises:
        ModelError: if an embedding is zero and the cosine is asked for.
    """
    judgements = judgements_of(collection)
    own = own_passages(collection)
    with _transformed(embedded, scheme, fit, scratch) as (queries, passages):
        compared = _compared(queries, passages, scheme)
        found = find(*compared, RANKING_DEPTH + int(own is not None))
        ranked = _without_own(found, own, RANKING_DEPTH)
        per_query = score(judgements, ranked)
        shape = measure(queries, passages, ranked, judgements) if len(passages) >= MINIMUM_TEXTS else None
        weathered = {}
        for name in ROBUSTNESS if robustness else ():
            transform = parse_transform(name)
            if transform.kind == "truncate" and transform.amount >= queries.shape[1]:
                continue
            reduced = _reduced(queries, passages, transform)
            nearest = find(*_compared(*reduced, scheme), ROBUSTNESS_DEPTH + int(own is not None))
            after = score(judgements, _without_own(nearest, own, ROBUSTNESS_DEPTH))
            weathered[name] = float(after["ndcg@10"].mean())
    return Evaluation(means(per_query), per_query, ranked, shape, weathered, found.unproven)


def measure(
    queries: npt.NDArray[np.float32],
    passages: PassageVectors,
    ranked: npt.NDArray[np.int64],
    judgements: Judgements,
) -> Geometry:
    """The geometry of what is searched. ranked: (n, >= 10) passages."""
    relevant = (judgements.grade > 0) & (judgements.passage != NO_PASSAGE)
    pairs = passages.of_passages(judgements.passage[relevant])
    return Geometry(
        passages=geometry.measure_cloud(passages.of_passages(geometry.sampled_rows(len(passages)))),
        queries=geometry.measure_cloud(queries) if len(queries) >= MINIMUM_TEXTS else None,
        alignment=geometry.alignment(queries[judgements.query[relevant]], pairs),
        hubness=geometry.hubness(ranked[:, : geometry.NEIGHBOURS], len(passages)),
    )


def measure_only(
    embedded: Embedded, collection: Collection, scheme: Scheme, fit: PassageVectors | None, find: Search, scratch: Path
) -> Geometry | None:
    """`Evaluation.geometry` without the rest."""
    own = own_passages(collection)
    with _transformed(embedded, scheme, fit, scratch) as (queries, passages):
        if len(passages) < MINIMUM_TEXTS:
            return None
        found = find(*_compared(queries, passages, scheme), geometry.NEIGHBOURS + int(own is not None))
        nearest = _without_own(found, own, geometry.NEIGHBOURS)
        return measure(queries, passages, nearest, judgements_of(collection))


def score_in_memory(encode: Encode, collection: Collection) -> DevScores:
    """A small collection, as the model stands: a dev set in training.

    Raises:
        ModelError: if the encoder gives embeddings that are not finite.
    """
    corpus = collection.corpus
    passages = _encode_finite(encode, corpus.texts(), corpus.ids(range(len(corpus))))
    queries = _encode_finite(encode, collection.queries, collection.query_ids)
    own = own_passages(collection)
    found = search(queries, PassageVectors.of_array(passages), RANKING_DEPTH + int(own is not None))
    figures = means(score(judgements_of(collection), _without_own(found, own, RANKING_DEPTH)))
    isoscore = measure_isotropy(passages).isoscore if len(passages) >= MINIMUM_TEXTS else None
    return DevScores({name: figures[name] for name in HEADLINE}, isoscore)


def judgements_of(collection: Collection) -> Judgements:
    """The collection's judgements by numbers."""
    grades: list[dict[int, int]] = []
    lost: list[list[int]] = []
    for query_id in collection.query_ids:
        found = {passage_id: collection.corpus.row_of(passage_id) for passage_id in collection.qrels[query_id]}
        judged = collection.qrels[query_id]
        grades.append({row: judged[passage_id] for passage_id, row in found.items() if row is not None})
        lost.append([judged[passage_id] for passage_id, row in found.items() if row is None])
    return Judgements.of(grades, lost)


def own_passages(collection: Collection) -> npt.NDArray[np.int64] | None:
    """(n,) Of each query the passage with its id, -1 for none; None where equal ids mean nothing."""
    if not drops_identical_ids(collection.name):
        return None
    rows = [collection.corpus.row_of(query_id) for query_id in collection.query_ids]
    return np.array([NO_PASSAGE if row is None else row for row in rows], dtype=np.int64)


def drops_identical_ids(name: str) -> bool:
    """Whether a passage with the query's own id is not a result."""
    known = known_dataset(name)
    return known is not None and known.queries_in_corpus


def write_transformed(passages: PassageVectors, transform: Map, dimensions: int, path: Path) -> PassageVectors:
    """The passages after a transform that treats them in batches, written out: a vector must be the same each time."""
    written = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(passages), dimensions))
    for start, block in passages.blocks():
        written[start : start + len(block)] = transform(block).numpy()
    written.flush()
    numbers = np.arange(len(passages))
    return PassageVectors([path], dimensions, np.zeros(len(passages), dtype=np.int32), numbers, passages.rows)


@contextmanager
def _transformed(
    embedded: Embedded, scheme: Scheme, fit: PassageVectors | None, scratch: Path
) -> Iterator[tuple[npt.NDArray[np.float32], PassageVectors]]:
    """Queries and passages as they are searched but for the cosine's division by length."""
    if scheme.transform.kind == "none":
        yield embedded.queries, embedded.passages
        return
    transform = fitted(scheme.transform, embedded.passages if fit is None else fit)
    queries = transform(torch.from_numpy(embedded.queries)).numpy()
    with tempfile.TemporaryDirectory(prefix="ragcun-", dir=scratch) as folder:
        yield queries, write_transformed(embedded.passages, transform, queries.shape[1], Path(folder) / "passages.npy")


def _reduced(
    queries: npt.NDArray[np.float32], passages: PassageVectors, transform: Transform
) -> tuple[npt.NDArray[np.float32], PassageVectors]:
    """A transform of each dimension by itself, applied as passages are read."""
    reduce = fitted(transform, passages)
    return reduce(torch.from_numpy(queries)).numpy(), passages.mapped(reduce)


def _compared(
    queries: npt.NDArray[np.float32], passages: PassageVectors, scheme: Scheme
) -> tuple[npt.NDArray[np.float32], PassageVectors]:
    if scheme.similarity == "euclidean":
        return queries, passages
    normalised = unit_length(torch.from_numpy(queries)).numpy()
    zero = not np.isfinite(normalised).all() or any(not block.any(dim=1).all() for _, block in passages.blocks())
    if zero:
        raise ModelError("an embedding is zero, and has no cosine to any other", "Compare by --similarity euclidean.")
    inner = passages.row_map
    return normalised, passages.mapped(unit_length if inner is None else _Then(inner, unit_length))


@dataclass(frozen=True)
class _Then:
    """One map after another; a class, so that other processes can be given it."""

    first: Map
    second: Map

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(vectors))


def _without_own(ranking: Ranking, own: npt.NDArray[np.int64] | None, depth: int) -> npt.NDArray[np.int64]:
    """The ranked passages without each query's own, cut to the depth."""
    passages = ranking.passages
    if own is not None:
        is_own = passages == own[:, None]
        last = np.argsort(is_own, axis=1, kind="stable")  # keeps the order of the others
        passages = np.take_along_axis(np.where(is_own, NO_PASSAGE, passages), last, axis=1)
    return passages[:, :depth]


def _encode_finite(encode: Encode, texts: Sequence[str], ids: Sequence[str]) -> npt.NDArray[np.float32]:
    embeddings = encode(texts)
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(broken):
        raise ModelError(
            f"the model gives no finite embedding for {len(broken)} of {len(texts)} texts, first {ids[broken[0]]!r}",
            "Its training diverged, or half precision overflowed; look at its metrics.jsonl.",
        )
    return embeddings
