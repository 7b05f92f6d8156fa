"""One model on one collection: search, score, measure what was searched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ragcun_cli.arrays import Figures, Numbers, Vectors
from ragcun_cli.data.cache import scratch_folder
from ragcun_cli.data.collection import Collection
from ragcun_cli.errors import ModelError
from ragcun_cli.evaluate import geometry
from ragcun_cli.evaluate.embedding import Embedded
from ragcun_cli.evaluate.geometry import Geometry
from ragcun_cli.evaluate.isotropy import MINIMUM_TEXTS, measure_isotropy
from ragcun_cli.evaluate.search import Ranking, search
from ragcun_cli.evaluate.transform_names import NO_TRANSFORM, Transform, parse_transform
from ragcun_cli.evaluate.transforms import ROBUSTNESS, Map, fitted, unit_length
from ragcun_cli.evaluate.vectors import PassageVectors
from ragcun_cli.model.vector_store import require_finite
from ragcun_cli.results.histograms import measure_histograms
from ragcun_cli.results.judgements import judgements_of, self_matches
from ragcun_cli.results.metrics import NO_PASSAGE, Judgements, means, score
from ragcun_cli.results.ties import SPARE, Ties, levels_of, measure_ties

Encode = Callable[[Sequence[str]], Vectors]  # texts -> (n, D) float32
# queries, passages, k -> the k nearest of each query
Search = Callable[[Vectors, PassageVectors, int], Ranking]

RANKING_DEPTH = 1000  # BEIR's: MAP and MRR see this many passages
ROBUSTNESS_DEPTH = 10
TRANSFORM_BLOCK = 1024  # vectors at a time
HEADLINE = ("ndcg@10", "recall@100", "map", "mrr")


@dataclass(frozen=True)
class Scheme:
    """How embeddings are compared: `euclidean` or `cosine`, after a transform.

    fit_on: what the transform's mean and covariance come from, `corpus` or the name of a file of training triples.
    """

    similarity: str = "euclidean"
    transform: Transform = NO_TRANSFORM
    fit_on: str = "corpus"

    @property
    def suffix(self) -> str:
        """What is added to a model's name, so that each scheme gets its own row; empty for the model as it is."""
        transform = "" if self.transform.kind == "none" else f"+{self.transform.name.replace(':', '-')}"
        fit = "-on-train" if self.fit_on != "corpus" and self.transform.needs_fit else ""
        return transform + fit + ("+cosine" if self.similarity == "cosine" else "")


@dataclass(frozen=True)
class Evaluation:
    """What one model scored on one collection.

    metrics: name -> mean over queries. per_query: name -> (n,), in the order of the collection's queries. ranked:
    (n, depth) passages, best first, -1 where there are no more; levels: (n, depth), equal where their distances are.
    ties: what their order changes, None if nothing. geometry: None below four passages. robustness:
    transform -> nDCG@10 after it, None where it leaves a zero vector, which has no cosine; robustness_ties: likewise
    for its ties. unproven: queries that had to be searched a second time.
    """

    metrics: dict[str, float]
    per_query: dict[str, Figures]
    ranked: Numbers
    levels: Numbers
    ties: Ties | None
    geometry: Geometry | None
    robustness: dict[str, float | None]
    robustness_ties: dict[str, Ties | None]
    unproven: int


@dataclass(frozen=True)
class DevScores:
    """What a training run needs to know about its dev set."""

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
        find: the search function.
        robustness: whether nDCG@10 is also taken after the transforms of `transforms.ROBUSTNESS`.
        scratch: where transformed passages are stored during the search, if they must be.

    Raises:
        ModelError: if an embedding is zero and the cosine is asked for.
    """
    judgements = judgements_of(collection)
    own = self_matches(collection)
    with _transformed(embedded, scheme, fit, scratch) as (queries, passages):
        compared = _compared(queries, passages, scheme, scheme.transform, collection)
        found = find(*compared, RANKING_DEPTH + SPARE + int(own is not None))
        passages_by_rank, levels = _without_own(found, own)
        ranked = passages_by_rank[:, :RANKING_DEPTH]
        per_query = score(judgements, ranked)
        ties = measure_ties(judgements, passages_by_rank, levels, RANKING_DEPTH, per_query)
        shape = measure(queries, passages, ranked, judgements) if len(passages) >= MINIMUM_TEXTS else None
        shape = _without_circular_isoscore(shape, scheme)
        reduced_scores: dict[str, float | None] = {}
        reduced_ties: dict[str, Ties | None] = {}
        for transform in map(parse_transform, ROBUSTNESS if robustness else ()):
            if transform.kind == "truncate" and transform.amount >= queries.shape[1]:
                continue
            try:
                reduced = _compared(*_reduced(queries, passages, transform), scheme, transform, collection)
            except ModelError:  # a zero vector has no cosine; the model itself has its score
                reduced_scores[transform.name] = None
                continue
            nearest = find(*reduced, ROBUSTNESS_DEPTH + SPARE + int(own is not None))
            rows, equals = _without_own(nearest, own)
            after = score(judgements, rows[:, :ROBUSTNESS_DEPTH])
            reduced_scores[transform.name] = float(after["ndcg@10"].mean())
            reduced_ties[transform.name] = measure_ties(judgements, rows, equals, ROBUSTNESS_DEPTH, after)
    return Evaluation(
        metrics=means(per_query),
        per_query=per_query,
        ranked=ranked,
        levels=levels[:, :RANKING_DEPTH],
        ties=ties,
        geometry=shape,
        robustness=reduced_scores,
        robustness_ties=reduced_ties,
        unproven=int(found.unproven.sum()),
    )


def measure(
    queries: Vectors,
    passages: PassageVectors,
    ranked: Numbers,
    judgements: Judgements,
) -> Geometry:
    """Measure the geometry of what is searched. ranked: (n, >= 10) passages."""
    relevant = (judgements.grade > 0) & (judgements.passage != NO_PASSAGE)
    asked, pairs = judgements.query[relevant], passages.of_passages(judgements.passage[relevant])
    sample = passages.of_passages(geometry.sampled_rows(len(passages)))
    return Geometry(
        passages=geometry.measure_stats(sample),
        queries=geometry.measure_stats(queries) if len(queries) >= MINIMUM_TEXTS else None,
        alignment=geometry.alignment(queries[asked], pairs),
        hubness=geometry.hubness(ranked[:, : geometry.NEIGHBOURS], len(passages)),
        histograms=measure_histograms(queries, sample, asked, pairs),
    )


def measure_only(
    embedded: Embedded, collection: Collection, scheme: Scheme, fit: PassageVectors | None, find: Search, scratch: Path
) -> Geometry | None:
    """Compute `Evaluation.geometry` without the rest."""
    own = self_matches(collection)
    with _transformed(embedded, scheme, fit, scratch) as (queries, passages):
        if len(passages) < MINIMUM_TEXTS:
            return None
        found = find(
            *_compared(queries, passages, scheme, scheme.transform, collection),
            geometry.NEIGHBOURS + int(own is not None),
        )
        nearest = _without_own(found, own)[0][:, : geometry.NEIGHBOURS]
        shape = measure(queries, passages, nearest, judgements_of(collection))
        return _without_circular_isoscore(shape, scheme)


def _without_circular_isoscore(shape: Geometry | None, scheme: Scheme) -> Geometry | None:
    """Drop an IsoScore that does not hold: its estimate assumes that the transform does not depend on the passages.

    For those that a whitening was fitted on it says nothing: 1,400 passages whitened by themselves gave 1.4.
    """
    if shape is None or scheme.transform.kind != "whiten" or scheme.fit_on != "corpus":
        return shape
    return dataclasses.replace(shape, passages=dataclasses.replace(shape.passages, isoscore=None, interval=None))


def score_in_memory(encode: Encode, collection: Collection) -> DevScores:
    """Score the current model on a small collection, such as a dev set in training.

    Raises:
        ModelError: if the encoder gives embeddings that are not finite.
    """
    corpus = collection.corpus
    passages = _encode_finite(encode, corpus.texts(), corpus.ids(range(len(corpus))))
    queries = _encode_finite(encode, collection.queries, collection.query_ids)
    own = self_matches(collection)
    found = search(queries, PassageVectors.of_array(passages), RANKING_DEPTH + int(own is not None))
    figures = means(score(judgements_of(collection), _without_own(found, own)[0][:, :RANKING_DEPTH]))
    isoscore = measure_isotropy(passages).isoscore if len(passages) >= MINIMUM_TEXTS else None
    return DevScores({name: figures[name] for name in HEADLINE}, isoscore)


def write_transformed(passages: PassageVectors, transform: Map, dimensions: int, path: Path) -> PassageVectors:
    """Write out passages after a transform that treats them in batches: a vector must be the same each time.

    Raises:
        OSError: if the disk is full. (Written, not mapped: a mapped file on a full disk kills the process.)
    """
    block_rows = torch.zeros(TRANSFORM_BLOCK, passages.dimensions)
    with path.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(passages), dimensions)}
        np.lib.format.write_array_header_1_0(stream, header)
        for _, block in passages.blocks(TRANSFORM_BLOCK):
            # Always a whole block: a product of another height rounds differently, and equal texts would not tie.
            block_rows[: len(block)] = block
            stream.write(transform(block_rows)[: len(block)].contiguous().numpy().tobytes())
    numbers = np.arange(len(passages))
    return PassageVectors([path], dimensions, np.zeros(len(passages), dtype=np.int32), numbers, passages.rows)


@contextmanager
def _transformed(
    embedded: Embedded, scheme: Scheme, fit: PassageVectors | None, scratch: Path
) -> Iterator[tuple[Vectors, PassageVectors]]:
    """Yield queries and passages as searched, but not yet divided by length for the cosine."""
    if scheme.transform.kind == "none":
        yield embedded.queries, embedded.passages
        return
    transform = fitted(scheme.transform, embedded.passages if fit is None else fit)
    queries = transform(torch.from_numpy(embedded.queries)).numpy()
    with scratch_folder(scratch) as folder:
        yield queries, write_transformed(embedded.passages, transform, queries.shape[1], folder / "passages.npy")


def _reduced(queries: Vectors, passages: PassageVectors, transform: Transform) -> tuple[Vectors, PassageVectors]:
    """Apply a transform of each dimension by itself; to passages, as they are read."""
    reduce = fitted(transform, passages)
    return reduce(torch.from_numpy(queries)).numpy(), passages.mapped(reduce)


def _compared(
    queries: Vectors,
    passages: PassageVectors,
    scheme: Scheme,
    last: Transform,
    collection: Collection,
) -> tuple[Vectors, PassageVectors]:
    """Return queries and passages as the search takes them. last: the transform applied last."""
    # Vectors of signs all have one length: both orders are the same, and dividing would only blur their many ties.
    if scheme.similarity == "euclidean" or last.kind == "binary":
        return queries, passages
    directions, normalised = unit_length(torch.from_numpy(queries)), passages.mapped(unit_length)
    without = int((~directions.isfinite().all(dim=1)).sum())
    rows = [
        int(passages.rows[start + place])
        for start, block in normalised.blocks()
        for place in (~block.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
    ]
    if without or rows:
        shown = f", first passage {collection.corpus.id_of(min(rows))!r}" if rows else ""
        raise ModelError(
            f"{without} queries and {len(rows)} passages have a zero embedding, which has no cosine{shown}",
            "Use --similarity euclidean.",
        )
    return directions.numpy(), normalised


def _without_own(ranking: Ranking, own: Numbers | None) -> tuple[Numbers, Numbers]:
    """Return the ranked passages without each query's own, and which are equally distant (`ties.levels_of`)."""
    passages, distances = ranking.passages, ranking.distances
    if own is not None:
        is_own = passages == own[:, None]
        last = np.argsort(is_own, axis=1, kind="stable")  # keeps the order of the others
        passages = np.take_along_axis(np.where(is_own, NO_PASSAGE, passages), last, axis=1)
        distances = np.take_along_axis(np.where(is_own, np.inf, distances), last, axis=1)
    return passages, levels_of(passages, distances)


def _encode_finite(encode: Encode, texts: Sequence[str], ids: Sequence[str]) -> Vectors:
    embeddings = encode(texts)
    require_finite(embeddings, lambda row: repr(ids[row]))
    return embeddings
