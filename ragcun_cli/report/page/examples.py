"""The queries with an arm's largest wins and losses, and what each system found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ragcun_cli.data.collection import Collection
from ragcun_cli.evaluate.datasets import Dataset
from ragcun_cli.report.comparison import differences_per_query
from ragcun_cli.report.rows import Row
from ragcun_cli.results.dataset_result import DatasetResult
from ragcun_cli.results.layout import shown_query_ids
from ragcun_cli.results.trec_run import read_run

MOST = 20  # wins, and as many losses
SEED = 0
RELEVANT = 2  # relevant passages shown per query
FOUND = 2  # top passages shown of each system


@dataclass(frozen=True)
class ShownPassage:
    """A passage to show. text: None if the dataset is missing. ranks: by baseline and row; None if not found."""

    passage_id: str
    text: str | None
    ranks: tuple[int | None, int | None]
    relevant: bool


@dataclass(frozen=True)
class Example:
    """One query. difference: of the metric, from -1 to 1. text: None if the dataset is missing."""

    dataset: str
    query_id: str
    text: str | None
    difference: float
    passages: tuple[ShownPassage, ...]


@dataclass(frozen=True)
class Extremes:
    """A row's wins and losses against the baseline, largest first. absent: datasets whose texts are missing."""

    row: str
    wins: tuple[Example, ...]
    losses: tuple[Example, ...]
    absent: tuple[str, ...]


def find_extremes(
    row: Row, baseline: Row, datasets: Sequence[str], metric: str, texts_of: Callable[[DatasetResult], Dataset | None]
) -> Extremes:
    """Find the extremes over all datasets that both were scored on; rankings are those of the first seeds.

    texts_of: finds a result's texts; None if they are missing.
    """
    ranked: list[tuple[float, float, str, str]] = []
    for dataset in datasets:
        if row.scores(dataset, metric) and baseline.scores(dataset, metric):
            query_ids, values = differences_per_query(row, baseline, dataset, metric)
            # Break ties at random, with a fixed seed; by name, all would come from the first dataset.
            lots = np.random.default_rng(SEED).random(len(values))
            ranked += zip(values.tolist(), lots.tolist(), [dataset] * len(values), query_ids, strict=True)
    ranked.sort(key=lambda each: (-each[0], each[1]))
    wins = [(value, dataset, query_id) for value, _, dataset, query_id in ranked[:MOST] if value > 0]
    losses = [(value, dataset, query_id) for value, _, dataset, query_id in reversed(ranked[-MOST:]) if value < 0]
    chosen: dict[str, set[str]] = {}
    for _, dataset, query_id in (*wins, *losses):
        chosen.setdefault(dataset, set()).add(query_id)
    texts = {name: texts_of(row.first.datasets[name]) for name in chosen}
    told: dict[tuple[str, str], Example] = {}
    for name, query_ids_of in chosen.items():
        runs = [read_run(each.first.datasets[name].run, query_ids_of) for each in (baseline, row)]
        known = _texts_of(texts[name], query_ids_of)
        for query_id in query_ids_of:
            rankings = [run.get(query_id, []) for run in runs]
            told[name, query_id] = _example(name, query_id, rankings, known.get(query_id))

    def shown(chosen_ones: Sequence[tuple[float, str, str]]) -> tuple[Example, ...]:
        return tuple(
            Example(dataset, query_id, told[dataset, query_id].text, value, told[dataset, query_id].passages)
            for value, dataset, query_id in chosen_ones
        )

    absent = tuple(name for name, found in texts.items() if found is None)
    return Extremes(row.name, shown(wins), shown(losses), absent)


@dataclass(frozen=True)
class _ExampleQuery:
    """A query's text and judgements, and the collection its passages are in."""

    text: str
    grades: dict[str, int]
    part: Collection


def _texts_of(dataset: Dataset | None, query_ids: set[str]) -> dict[str, _ExampleQuery]:
    if dataset is None:
        return {}
    asked = {}
    for name, part in dataset.parts.items():
        several = len(dataset.parts) > 1
        names = shown_query_ids(name, part.query_ids, several)
        for shown, query_id, text in zip(names, part.query_ids, part.queries, strict=True):
            if shown in query_ids:
                asked[shown] = _ExampleQuery(text, part.qrels[query_id], part)
    return asked


def _example(dataset: str, query_id: str, rankings: Sequence[Sequence[str]], asked: _ExampleQuery | None) -> Example:
    relevant = [passage for passage, grade in (asked.grades if asked else {}).items() if grade > 0]
    # The best-ranked relevant passages, then the top passages of each system.
    relevant.sort(key=lambda passage: min(_rank(ranking, passage) or len(ranking) + 1 for ranking in rankings))
    firsts = [passage for place in range(FOUND) for ranking in rankings for passage in ranking[place : place + 1]]
    shown = list(dict.fromkeys([*relevant[:RELEVANT], *firsts]))
    passages = tuple(
        ShownPassage(
            passage,
            _text(asked, passage),
            (_rank(rankings[0], passage), _rank(rankings[1], passage)),
            passage in relevant,
        )
        for passage in shown
    )
    return Example(dataset, query_id, asked.text if asked else None, 0.0, passages)


def _rank(ranking: Sequence[str], passage: str) -> int | None:
    return ranking.index(passage) + 1 if passage in ranking else None


def _text(asked: _ExampleQuery | None, passage: str) -> str | None:
    if asked is None:
        return None
    row = asked.part.corpus.row_of(passage)
    return None if row is None else asked.part.corpus.texts(np.array([row]))[0]
