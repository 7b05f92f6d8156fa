"""One model on one collection: encode, search, score, measure isotropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ragcun_cli.data.collection import Collection
from ragcun_cli.errors import ModelError
from ragcun_cli.evaluate.isotropy import MINIMUM_TEXTS, Isotropy, measure_isotropy
from ragcun_cli.evaluate.metrics import means, score
from ragcun_cli.evaluate.rules import drops_identical_ids
from ragcun_cli.evaluate.search import Ranking, search

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]  # texts -> (n, D) float32

RANKING_DEPTH = 1000  # BEIR's: MAP and MRR see this many passages


@dataclass(frozen=True)
class Evaluation:
    """What one model scored on one collection.

    metrics: name -> mean over queries; per_query: name -> query id -> figure; rankings: query id -> passage ids,
    best first; isotropy: of the passages, None below four passages.
    """

    metrics: dict[str, float]
    per_query: dict[str, dict[str, float]]
    rankings: dict[str, list[str]]
    isotropy: Isotropy | None


def evaluate(encode: Encode, collection: Collection) -> Evaluation:
    """Score an encoder by exact Euclidean search.

    Raises:
        ModelError: if the encoder gives embeddings that are not finite.
    """
    # Rows in the order of their ids, so that equally distant passages are ranked by id.
    by_id = np.argsort(np.array(collection.passage_ids, dtype=object))
    passage_ids = [collection.passage_ids[row] for row in by_id]
    passages = _encode_finite(encode, [collection.passages[row] for row in by_id], passage_ids)
    queries = _encode_finite(encode, collection.queries, collection.query_ids)
    drop_identical = drops_identical_ids(collection.name)
    ranking = search(queries, passages, RANKING_DEPTH + int(drop_identical))
    rankings = _named(ranking, collection.query_ids, passage_ids, drop_identical)
    per_query = score(collection.qrels, rankings)
    isotropy = measure_isotropy(passages) if len(passages) >= MINIMUM_TEXTS else None
    return Evaluation(means(per_query), per_query, rankings, isotropy)


def _encode_finite(encode: Encode, texts: Sequence[str], ids: Sequence[str]) -> npt.NDArray[np.float32]:
    embeddings = encode(texts)
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(broken):
        raise ModelError(
            f"the model gives no finite embedding for {len(broken)} of {len(texts)} texts, first {ids[broken[0]]!r}",
            "Its training diverged, or half precision overflowed; look at its metrics.jsonl.",
        )
    return embeddings


def _named(
    ranking: Ranking, query_ids: Sequence[str], passage_ids: Sequence[str], drop_identical: bool
) -> dict[str, list[str]]:
    named = {}
    for query_id, rows in zip(query_ids, ranking.passages.tolist(), strict=True):
        ids = [passage_ids[row] for row in rows]
        if drop_identical:
            ids = [passage_id for passage_id in ids if passage_id != query_id]
        named[query_id] = ids[:RANKING_DEPTH]
    return named
