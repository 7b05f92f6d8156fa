"""Check that each result still follows from the files it was made from.

Its means must follow from the per-query scores, these from the run and the judgements (if the dataset is available),
its fingerprint from model.json, and its isotropy from isotropy.json and the spectrum.
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
from ragcun_cli.results.isotropy import SIDES
from ragcun_cli.results.layout import PLAIN_MEAN, shown_query_ids
from ragcun_cli.results.metrics import NO_PASSAGE, Judgements, score
from ragcun_cli.results.per_query import read_per_query
from ragcun_cli.results.spectrum import EIGENVALUES, column, read_spectrum
from ragcun_cli.results.trec_run import run_lines

ROUNDING = 1e-9
NO_DATASET = "--data-dir does not have the dataset as it was when scored"
SPECTRUM_ROUNDING = 1e-3  # relative: eigenvalues are computed in single precision


@dataclass(frozen=True)
class ResultCheck:
    """The check of one result. problems: what no longer matches; empty if everything does. unchecked: what could not be
    checked, and why.
    """

    model: str
    dataset: str
    problems: tuple[str, ...]
    unchecked: tuple[str, ...]


def verify_results(results: Path, data_dir: Path) -> list[ResultCheck]:
    """Check every result on disk.

    Raises:
        UsageError, DataError: as raised by `collect`.
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
        problems.append("its fingerprint does not match model.json and this dataset")
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
    # The report's own strata are not used here: an error in them would go unnoticed.
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
            problems.append(f"{name}: the result states {stated:.6f}, but the per-query scores give {mean:.6f}")
    return problems


def _check_run(
    result: DatasetResult,
    dataset: Dataset,
    ids: Sequence[str],
    figures: dict[str, Figures],
) -> list[str]:
    """Score the run again from the judgements."""
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
        return ["the per-query scores are not for the dataset's queries"]
    problems = []
    for metric, values in figures.items():
        different = np.flatnonzero(~(np.abs(np.asarray(again[metric]) - values) <= ROUNDING))
        if len(different):
            first = int(different[0])
            problems.append(
                f"{metric}: {len(different)} of {len(ids)} queries score differently now, first {ids[first]!r}: "
                f"{values[first]:.6f} is recorded, but the run gives {again[metric][first]:.6f}"
            )
    return problems


def _numbers_of(part: Collection) -> dict[str, int]:
    """Number the judged passages. Unjudged passages only matter by their position, so they share one number."""
    return {passage: number for number, passage in enumerate(dict.fromkeys(p for q in part.qrels.values() for p in q))}


def _judgements(part: Collection, numbers: dict[str, int]) -> Judgements:
    return Judgements.of(
        [{numbers[passage]: grade for passage, grade in part.qrels[query_id].items()} for query_id in part.query_ids]
    )


def _read_run(result: DatasetResult, asked: dict[str, dict[str, int]]) -> dict[str, array[int]]:
    """Map each query id to its passages' numbers, best first: 4 bytes each, as a run of MS MARCO has seven million."""
    ranked = {query_id: array("i") for query_id in asked}
    for query_id, passage in run_lines(result.run):
        numbers = asked.get(query_id)
        if numbers is None:
            raise DataError(f"{result.run.name}: query {query_id!r} is not in the dataset")
        ranked[query_id].append(numbers.get(passage, len(numbers)))
    return ranked


def _as_rows(ranked: Sequence[array[int]]) -> Numbers:
    rows = np.full((len(ranked), max([1, *map(len, ranked)])), NO_PASSAGE, dtype=np.int64)
    for row, passages in zip(rows, ranked, strict=True):
        row[: len(passages)] = passages
    return rows


def _check_isotropy(model: ModelResults, result: DatasetResult) -> list[str]:
    """Check that the three places that record isotropy agree; recomputing IsoScore would need the embeddings."""
    recorded = result.isotropy
    entry = model.geometry.get(result.name)
    if recorded is None:
        return []
    if entry is None or (entry.sha256, entry.split) != (result.sha256, result.split):
        return ["isotropy.json was measured on other texts"]
    if entry.measured != recorded:
        ours, theirs = recorded.content(), entry.measured.content()
        differing = [key for key in ours if ours[key] != theirs[key]]
        return [f"isotropy.json and the result differ in {', '.join(differing) or 'their content'}"]
    problems = []
    try:
        spectrum = read_spectrum(result.spectrum) if result.spectrum.is_file() else {}
    except DataError as error:
        return [error.message]
    for side in SIDES:
        values = spectrum.get(column(EIGENVALUES, side))
        measured = recorded.side(side)
        if values is None or measured is None or (stated := measured.standard_deviation) is None:
            continue
        deviation = float(np.sqrt(np.mean(values)))
        if result.rules["average"] == PLAIN_MEAN and abs(deviation - stated) > SPECTRUM_ROUNDING * stated:
            problems.append(f"std of {side}: the result states {stated:.6f}, but the spectrum gives {deviation:.6f}")
    return problems


def find_texts(result: DatasetResult, data_dir: Path) -> Dataset | None:
    """Find the dataset by name in the data folder, or where it was when scored; None if neither has the same
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
