"""Does each result still follow from the files it is said to come from?

Its means from the per-query scores, these from the run and the judgements (where the dataset is here), its fingerprint
from what model.json says, its isotropy from isotropy.json and the spectrum.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragcun_cli.arrays import Figures, Numbers
from ragcun_cli.data.collection import Collection
from ragcun_cli.errors import DataError, RagcunError
from ragcun_cli.evaluate.datasets import Dataset, find_datasets
from ragcun_cli.report.collect import ModelResults, collect
from ragcun_cli.results.dataset_result import DatasetResult
from ragcun_cli.results.layout import PLAIN_MEAN, shown_query_ids
from ragcun_cli.results.metrics import NO_PASSAGE, Judgements, score
from ragcun_cli.results.per_query import read_per_query
from ragcun_cli.results.spectrum import EIGENVALUES, column, read_spectrum
from ragcun_cli.results.trec_run import run_lines

ROUNDING = 1e-9
NO_DATASET = "the dataset is not in --data-dir as it was scored"
SPECTRUM_ROUNDING = 1e-3  # relative: eigenvalues are taken in single precision


@dataclass(frozen=True)
class ResultCheck:
    """One model on one dataset. problems: what no longer matches; empty where all does. unchecked: what could not be
    looked at, and why.
    """

    model: str
    dataset: str
    problems: tuple[str, ...]
    unchecked: tuple[str, ...]


def verify_results(results: Path, data_dir: Path) -> list[ResultCheck]:
    """Every result on disk.

    Raises:
        UsageError, DataError: as `collect` says.
    """
    models = collect(results)
    datasets: dict[str, Dataset | None] = {}
    checks = []
    for model in models:
        for name, result in model.datasets.items():
            if name not in datasets:
                datasets[name] = find_texts(result, data_dir)
            checks.append(_check(model, result, datasets[name]))
    return checks


def _check(model: ModelResults, result: DatasetResult, dataset: Dataset | None) -> ResultCheck:
    problems: list[str] = []
    unchecked: list[str] = []
    if model.entry.fingerprint(result.sha256, result.split) != result.fingerprint:
        problems.append("its fingerprint is not that of model.json and this dataset")
    try:
        kept = read_per_query(result.per_query)
        ids, figures = kept.query_ids, kept.figures
        problems += _check_means(result, ids, figures)
        if dataset is None:
            unchecked.append(NO_DATASET)
        else:
            problems += _check_run(result, dataset, ids, figures)
    except (DataError, OSError) as error:
        problems.append(error.message if isinstance(error, DataError) else f"{error.filename}: {error.strerror}")
    problems += _check_isotropy(model, result)
    if not result.spectrum.is_file() and result.isotropy is not None:
        problems.append(f"{result.spectrum.name} is missing")
    return ResultCheck(model.name, result.name, tuple(problems), tuple(unchecked))


def _check_means(result: DatasetResult, ids: Sequence[str], figures: dict[str, Figures]) -> list[str]:
    # Not by the strata that the report itself takes means with: a fault of theirs would vouch for itself.
    parts = np.zeros(len(ids), dtype=np.int64)
    if result.rules["average"] != PLAIN_MEAN:
        parts = np.unique([query_id.split("/", 1)[0] for query_id in ids], return_inverse=True)[1]
    problems = []
    for name, stated in result.metrics.items():
        if name not in figures:
            problems.append(f"{name}: no per-query scores")
            continue
        mean = float(np.mean([figures[name][parts == part].mean() for part in np.unique(parts)]))
        if not abs(mean - stated) <= ROUNDING:
            problems.append(f"{name}: {stated:.6f} is stated, {mean:.6f} by the per-query scores")
    return problems


def _check_run(
    result: DatasetResult,
    dataset: Dataset,
    ids: Sequence[str],
    figures: dict[str, Figures],
) -> list[str]:
    """Score the run again, by the judgements."""
    again: dict[str, list[float]] = {}
    order: list[str] = []
    numbers = {name: _numbers_of(part) for name, part in dataset.parts.items()}
    several = len(dataset.parts) > 1
    asked = {
        shown: numbers[name]
        for name, part in dataset.parts.items()
        for shown in shown_query_ids(name, part.query_ids, several)
    }
    ranked = _read_run(result, asked)
    for name, part in dataset.parts.items():
        shown = shown_query_ids(name, part.query_ids, several)
        order += shown
        for metric, values in score(
            _judgements(part, numbers[name]), _as_rows([ranked[each] for each in shown])
        ).items():
            again.setdefault(metric, []).extend(values.tolist())
    if order != list(ids):
        return ["the per-query scores are not of the dataset's queries"]
    problems = []
    for metric, values in figures.items():
        different = np.flatnonzero(~(np.abs(np.asarray(again[metric]) - values) <= ROUNDING))
        if len(different):
            first = int(different[0])
            problems.append(
                f"{metric}: {len(different)} of {len(ids)} queries score otherwise by the run, first {ids[first]!r}: "
                f"{values[first]:.6f} is kept, {again[metric][first]:.6f} by the run"
            )
    return problems


def _numbers_of(part: Collection) -> dict[str, int]:
    """The judged passages by number. Of the others a score sees no more than that they are there: they share one."""
    return {passage: number for number, passage in enumerate(dict.fromkeys(p for q in part.qrels.values() for p in q))}


def _judgements(part: Collection, numbers: dict[str, int]) -> Judgements:
    return Judgements.of(
        [{numbers[passage]: grade for passage, grade in part.qrels[query_id].items()} for query_id in part.query_ids]
    )


def _read_run(result: DatasetResult, asked: dict[str, dict[str, int]]) -> dict[str, array[int]]:
    """Query id -> passages by number, best first: 4 bytes each, of seven million in a run of MS MARCO."""
    ranked = {query_id: array("i") for query_id in asked}
    for query_id, passage in run_lines(result.run):
        numbers = asked.get(query_id)
        if numbers is None:
            raise DataError(f"{result.run.name}: has a query {query_id!r} that the dataset lacks")
        ranked[query_id].append(numbers.get(passage, len(numbers)))
    return ranked


def _as_rows(ranked: Sequence[array[int]]) -> Numbers:
    rows = np.full((len(ranked), max([1, *map(len, ranked)])), NO_PASSAGE, dtype=np.int64)
    for row, passages in zip(rows, ranked, strict=True):
        row[: len(passages)] = passages
    return rows


def _check_isotropy(model: ModelResults, result: DatasetResult) -> list[str]:
    """IsoScore itself needs the embeddings; what was written of them in three places must agree."""
    recorded = result.isotropy
    entry = dict(model.geometry.get(result.name, {}))
    if recorded is None:
        return []
    if entry.pop("sha256", None) != result.sha256 or entry.pop("split", None) != result.split:
        return ["isotropy.json is of other texts"]
    if entry != recorded:
        differing = [key for key in recorded if recorded[key] != entry.get(key)]
        return [f"isotropy.json and the result differ in {', '.join(differing) or 'what they hold'}"]
    problems = []
    try:
        spectrum = read_spectrum(result.spectrum) if result.spectrum.is_file() else {}
    except DataError as error:
        return [error.message]
    for side in ("passages", "queries"):
        values = spectrum.get(column(EIGENVALUES, side))
        stated = (recorded.get(side) or {}).get("standard_deviation")
        if values is None or stated is None:
            continue
        deviation = float(np.sqrt(np.mean(values)))
        if result.rules["average"] == PLAIN_MEAN and abs(deviation - stated) > SPECTRUM_ROUNDING * stated:
            problems.append(f"std of {side}: {stated:.6f} is stated, {deviation:.6f} by the spectrum")
    return problems


def find_texts(result: DatasetResult, data_dir: Path) -> Dataset | None:
    """The dataset, by its name in the data folder or where it was when it was scored; None if neither has the very
    texts and judgements.
    """
    for name in (result.name, result.dataset.path or result.name):
        try:
            found, _ = find_datasets([name], data_dir, result.split)
        except RagcunError:
            continue
        if found and found[0].sha256 == result.sha256:
            return found[0]
    return None
