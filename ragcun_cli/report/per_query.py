"""Per-query scores of a row on a dataset, checked and put into one order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ragcun_cli.arrays import Figures
from ragcun_cli.errors import DataError
from ragcun_cli.report.rows import Row
from ragcun_cli.report.statistics.differences import Strata
from ragcun_cli.results.dataset_result import DatasetResult
from ragcun_cli.results.layout import PLAIN_MEAN
from ragcun_cli.results.per_query import read_per_query

ROUNDING = 1e-9  # allowed between a mean computed then and now


@dataclass(frozen=True)
class Scores:
    """Per-query scores. scores: (seeds, queries), in the order of query_ids. strata: how their mean is computed."""

    query_ids: tuple[str, ...]
    strata: Strata
    scores: Figures


def read_scores(row: Row, dataset: str, metric: str) -> Scores:
    """Read the scores of all seeds of a row.

    Raises:
        DataError: if a file cannot be read, has a score that is not finite, lacks the metric, or does not give the
            mean that the result states, or if the seeds were asked different queries.
    """
    members = [_read(member.datasets[dataset], metric) for member in row.members]
    for other, member in zip(members, row.members, strict=True):
        require_same_queries(members[0], row.first.name, other, member.name, dataset)
    return Scores(
        members[0].query_ids,
        members[0].strata,
        np.concatenate([_in_order(each, members[0].query_ids) for each in members]),
    )


def pair_scores(row: Row, baseline: Row, dataset: str, metric: str) -> tuple[Scores, Scores]:
    """Read the scores of both rows, with queries in the same order.

    Raises:
        DataError: as raised by `read_scores`, or if the two were asked different queries.
    """
    one, other = read_scores(row, dataset, metric), read_scores(baseline, dataset, metric)
    require_same_queries(one, row.name, other, baseline.name, dataset)
    return one, Scores(one.query_ids, one.strata, _in_order(other, one.query_ids))


def require_same_queries(one: Scores, one_name: str, other: Scores, other_name: str, dataset: str) -> None:
    """Refuse to compare results whose queries differ.

    Raises:
        DataError: if they were asked different queries, whose scores cannot be compared; it names one.
    """
    if set(one.query_ids) == set(other.query_ids):
        return
    lonely = sorted(set(one.query_ids) ^ set(other.query_ids))
    raise DataError(
        f"{dataset}: {one_name} was asked {len(one.query_ids)} queries and {other_name} {len(other.query_ids)}; "
        f"{len(lonely)} are in only one of the two, first {lonely[0]!r}",
        "Evaluate both again on the same files.",
    )


def _read(result: DatasetResult, metric: str) -> Scores:
    path = result.per_query
    kept = read_per_query(path, [metric])
    ids, scores = kept.query_ids, kept.figures[metric]
    if not np.isfinite(scores).all():
        broken = ids[int(np.flatnonzero(~np.isfinite(scores))[0])]
        raise DataError(f"{path}: query {broken!r} has no finite {metric}", "Evaluate again.")
    if len(set(ids)) != len(ids):
        raise DataError(f"{path}: a query appears twice", "Evaluate again.")
    strata = _strata(ids, result)
    mean = strata.mean(scores)
    if abs(mean - result.metrics[metric]) > ROUNDING:
        raise DataError(
            f"{path}: its mean {metric} is {mean:.6f}, but {result.path.name} says {result.metrics[metric]:.6f}",
            "One of the two was changed: evaluate again.",
        )
    return Scores(tuple(ids), strata, scores[None])


def _strata(ids: list[str], result: DatasetResult) -> Strata:
    """One stratum; or, if the score is a mean over forums, one per forum, named before the slash in query ids."""
    if result.rules["average"] == PLAIN_MEAN:
        return Strata.single(len(ids))
    sizes = [len(list(group)) for _, group in groupby(ids, key=lambda query_id: query_id.split("/", 1)[0])]
    return Strata.equal([Strata.single(size) for size in sizes])


def _in_order(scores: Scores, query_ids: tuple[str, ...]) -> Figures:
    if scores.query_ids == query_ids:
        return scores.scores
    place = {query_id: number for number, query_id in enumerate(scores.query_ids)}
    return scores.scores[:, [place[query_id] for query_id in query_ids]]
