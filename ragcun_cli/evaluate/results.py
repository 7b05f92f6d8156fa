"""Results on disk: `results/<model>/<dataset>.json`; beside it per-query scores, the run, spectrum and isotropy."""

from __future__ import annotations

import contextlib
import glob
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragcun_cli import files
from ragcun_cli.arrays import Figures
from ragcun_cli.console import note
from ragcun_cli.data.cache import cache_folder, key_of, only_writer
from ragcun_cli.environment import command_line, versions
from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate.datasets import Dataset
from ragcun_cli.evaluate.geometry import EmbeddingStats, Geometry, mean_stats
from ragcun_cli.evaluate.scoring import RANKING_DEPTH, Evaluation
from ragcun_cli.results.dataset_result import DatasetResult, ScoredTexts
from ragcun_cli.results.histograms import added_histograms, write_histograms
from ragcun_cli.results.isotropy import IsotropyEntry, MeasuredIsotropy, find_isotropy, put_isotropy
from ragcun_cli.results.json_files import find_json
from ragcun_cli.results.judgements import drops_identical_ids
from ragcun_cli.results.layout import (
    FORMAT,
    HISTOGRAMS_ENDING,
    MEAN_OF_PARTS,
    MODEL,
    OF_MODEL,
    PLAIN_MEAN,
    QUERIES_ENDING,
    RUN_ENDING,
    SPECTRUM_ENDING,
    file_record,
    shown_query_ids,
)
from ragcun_cli.results.model_entry import ModelEntry, another_model
from ragcun_cli.results.per_query import write_per_query
from ragcun_cli.results.spectrum import DEVIATIONS, EIGENVALUES, column, write_spectrum
from ragcun_cli.results.ties import Ties
from ragcun_cli.results.trec_run import Ranked, write_run

TIES = "equal distances: greater id first, as trec_eval"
LEAST_BYTES_OF_A_LINE = 3  # of a run, compressed; five to eight are usual


def check_results_folder(root: Path, model: ModelEntry, datasets: Sequence[Dataset], overwrite: bool) -> Path:
    """Check and return the folder for this model's results; changes nothing.

    Raises:
        UsageError: if it holds results of other weights, or of other texts by the same name, unless they are to be
            overwritten: a row of the table must never mix two models, nor a column two collections.
    """
    folder = root / model.name
    files.require_writable(folder / MODEL, max((_bytes_of_run(dataset) for dataset in datasets), default=0))
    recorded = ModelEntry.find(folder)
    if folder.is_dir() and any(map(_is_foreign, folder.iterdir())) and find_json(folder / MODEL) is None:
        raise UsageError(f"{folder}: this is not a ragcun results folder", "Choose another --results or --name.")
    others = [] if recorded is None else model.differing(recorded)
    if others or (recorded is None and (folder / MODEL).is_file()):
        if not overwrite:
            raise another_model(folder, {key: (getattr(recorded, key), getattr(model, key)) for key in others})
        return folder
    for dataset in datasets:
        ours = (dataset.split, dataset.sha256)
        kept = DatasetResult.find(folder / f"{dataset.name}.json")
        if kept is not None and (kept.split, kept.sha256) != ours and not overwrite:
            raise UsageError(
                f"{kept.path}: is a result on other texts or judgements with this name (split {kept.split})",
                "Give --overwrite to replace it, or another --results to keep both.",
            )
    return folder


def _is_foreign(path: Path) -> bool:
    """Whether a file may be somebody else's; what a killed ragcun was writing first has a recognisable name."""
    return not path.name.startswith(f".{MODEL}.")


def _bytes_of_run(dataset: Dataset) -> int:
    """Return the least bytes that a result's largest file takes."""
    lines = (len(part.queries) * min(RANKING_DEPTH, len(part.corpus)) for part in dataset.parts.values())
    return LEAST_BYTES_OF_A_LINE * sum(lines)


def kept_result(folder: Path, model: ModelEntry, dataset: Dataset, robustness: bool) -> DatasetResult | None:
    """Return the existing result of exactly this model, texts and rules, if its files are intact, or None.

    robustness: whether it must have the scores of smaller embeddings.
    """
    result = DatasetResult.find(folder / f"{dataset.name}.json")
    if result is None or result.fingerprint != model.fingerprint(dataset.sha256, dataset.split):
        return None
    if result.format != FORMAT or (robustness and not result.robustness):
        return None
    try:
        whole = result.files == file_record(folder, dataset.name)
    except FileNotFoundError:
        return None
    measured = result.isotropy is None or kept_geometry(folder, model, dataset) is not None
    return result if whole and measured else None


def kept_geometry(folder: Path, model: ModelEntry, dataset: Dataset) -> MeasuredIsotropy | None:
    """Return what isotropy.json has on exactly this model and these texts; None if it has nothing."""
    recorded = ModelEntry.find(folder)
    if recorded is None or model.differing(recorded):
        return None
    entry = find_isotropy(folder, dataset.name)
    if entry is None or (entry.split, entry.sha256) != (dataset.split, dataset.sha256):
        return None
    if not all((folder / f"{dataset.name}{ending}").is_file() for ending in (SPECTRUM_ENDING, HISTOGRAMS_ENDING)):
        return None
    return entry.measured


def claim_results_folder(folder: Path, model: ModelEntry) -> None:
    """Claim the folder for this model, deleting the results of another model."""
    recorded = ModelEntry.find(folder)
    if find_json(folder / MODEL) is not None and (recorded is None or model.differing(recorded)):
        replaced = sorted(path.stem for path in folder.glob("*.json") if path.name not in OF_MODEL)
        note(f"{folder}: removing the other model's results ({', '.join(replaced) or 'none'}).")
        shutil.rmtree(folder)
    model.write(folder)


def write_results(
    folder: Path,
    model: ModelEntry,
    dataset: Dataset,
    evaluations: Mapping[str, Evaluation],
    search: dict[str, Any],
) -> DatasetResult:
    """Write all files of one dataset; the JSON comes last, so that it is there only when the others are.

    evaluations: part name -> its evaluation. search: the record of how it was searched.
    """
    with _nothing_half_written(folder, dataset.name):
        return _write_all(folder, model, dataset, evaluations, search)


@contextlib.contextmanager
def _nothing_half_written(folder: Path, dataset: str) -> Iterator[None]:
    """Clean up if the disk is full: leave no dataset's files without its result, and no model without any."""
    try:
        yield
    except OSError:
        if not (folder / f"{dataset}.json").is_file():
            for path in folder.glob(f"{glob.escape(dataset)}.*"):
                path.unlink()
        if [path.name for path in folder.iterdir()] == [MODEL]:
            shutil.rmtree(folder)
        raise


def _write_all(
    folder: Path,
    model: ModelEntry,
    dataset: Dataset,
    evaluations: Mapping[str, Evaluation],
    search: dict[str, Any],
) -> DatasetResult:
    several = len(evaluations) > 1
    ids = _shown_ids(dataset, evaluations)
    write_per_query(folder / f"{dataset.name}{QUERIES_ENDING}", ids, _per_query(evaluations))
    write_run(folder / f"{dataset.name}{RUN_ENDING}", _rankings(dataset, evaluations), model.name)
    shapes = {name: evaluation.geometry for name, evaluation in evaluations.items()}
    isotropy = write_geometry(folder, dataset, shapes)
    result = DatasetResult(
        format=FORMAT,
        fingerprint=model.fingerprint(dataset.sha256, dataset.split),
        dataset=_scored_texts(dataset),
        model=model,
        rules={
            "text": '(title + " " + text).strip()',
            "similarity": model.similarity,
            "search": "exact",
            "depth": RANKING_DEPTH,
            "ties": TIES,
            "identical_ids_dropped": drops_identical_ids(dataset.name),
            "ndcg_gain": "linear",
            "queries_without_results": "score 0",
            "average": MEAN_OF_PARTS if several else PLAIN_MEAN,
        },
        precision=model.precision,
        metrics=_mean_figures([evaluation.metrics for evaluation in evaluations.values()]),
        ties=_ties_entry([(each.ties, each.metrics) for each in evaluations.values()]),
        robustness=_mean_of([evaluation.robustness for evaluation in evaluations.values()]),
        robustness_ties=_robustness_ties(list(evaluations.values())),
        isotropy=isotropy,
        search={**search, "unproven": sum(evaluation.unproven for evaluation in evaluations.values())},
        versions=versions(),
        command=command_line(),
        files=file_record(folder, dataset.name),
        parts={name: _part_entry(each) for name, each in evaluations.items()} if several else None,
        folder=folder,
    )
    result.write()
    return result


def write_geometry(folder: Path, dataset: Dataset, shapes: Mapping[str, Geometry | None]) -> MeasuredIsotropy | None:
    """Write one dataset's geometry into `isotropy.json`; its eigenvalues, descending, and each dimension's standard
    deviation into `<dataset>.spectrum.tsv`; counts of cosines and lengths into `<dataset>.histograms`, which is JSON
    (only results end in .json). For several parts, their mean.
    """
    present = [shape for shape in shapes.values() if shape is not None]
    if not present:
        return None
    shape = _mean_geometry(present)
    measured = shape.figures()
    # Two evaluations of one model, each of its own datasets, may write here at once.
    with only_writer(cache_folder() / "results" / key_of(folder=str(folder.resolve()))):
        put_isotropy(folder, dataset.name, IsotropyEntry(dataset.split, dataset.sha256, measured))
    sides = {"passages": shape.passages} | ({} if shape.queries is None else {"queries": shape.queries})
    columns = {column(EIGENVALUES, name): side.eigenvalues for name, side in sides.items()}
    columns |= {column(DEVIATIONS, name): side.deviations for name, side in sides.items()}
    write_spectrum(folder / f"{dataset.name}{SPECTRUM_ENDING}", columns)
    write_histograms(folder / f"{dataset.name}{HISTOGRAMS_ENDING}", shape.histograms)
    return measured


def _scored_texts(dataset: Dataset) -> ScoredTexts:
    parts = list(dataset.parts.values())
    return ScoredTexts(
        name=dataset.name,
        path=str(dataset.path),
        found_at=str(files.given_path(dataset.path)),
        split=dataset.split,
        sha256=dataset.sha256,
        passages=sum(len(part.corpus) for part in parts),
        empty_passages=sum(part.corpus.facts.empty_passages for part in parts),
        duplicate_ids=sum(part.corpus.facts.duplicate_ids for part in parts),
        queries=sum(len(part.queries) for part in parts),
        judgements=sum(part.judgements for part in parts),
        judgements_of_unknown_passages=sum(part.unknown_judgements for part in parts),
        queries_without_relevant=sum(part.queries_without_relevant for part in parts),
        differs_from_published=list(dataset.counts) if dataset.known is not None else None,
        remark=(dataset.known.remark or None) if dataset.known is not None else None,
        parts={
            name: {"passages": len(part.corpus), "queries": len(part.queries), "sha256": part.sha256}
            for name, part in dataset.parts.items()
        }
        if len(parts) > 1
        else None,
    )


def _part_entry(evaluation: Evaluation) -> dict[str, Any]:
    shape = evaluation.geometry
    return {"metrics": evaluation.metrics, "isotropy": None if shape is None else shape.figures().content()}


def _ties_entry(
    parts: Sequence[tuple[Ties | None, Mapping[str, float]]], wanted: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Return what the order of equally distant passages changes, the mean over parts; None if nothing. wanted: which
    metrics, all by default.
    """
    if all(ties is None for ties, _ in parts):
        return None
    names = wanted or next(list(ties.expected) for ties, _ in parts if ties is not None)

    def mean(kind: str, name: str) -> float:
        return float(np.mean([metrics[name] if ties is None else getattr(ties, kind)[name] for ties, metrics in parts]))

    ranges = {name: {kind: mean(kind, name) for kind in ("expected", "low", "high")} for name in names}
    return {
        "queries": sum(ties.queries for ties, _ in parts if ties is not None),
        "queries_with_more_equals_than_ranks": sum(ties.open for ties, _ in parts if ties is not None),
        "metrics": {name: each for name, each in ranges.items() if each["high"] > each["low"]},
    }


def _robustness_ties(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Return transform -> what the order of ties changes in its nDCG@10, where it changes anything."""
    found = {}
    for name in evaluations[0].robustness_ties:
        parts = [(each.robustness_ties.get(name), each.robustness[name]) for each in evaluations]
        if any(value is None for _, value in parts):
            continue
        entry = _ties_entry([(ties, {"ndcg@10": value or 0.0}) for ties, value in parts], ["ndcg@10"])
        if entry is not None and "ndcg@10" in entry["metrics"]:
            found[name] = {"queries": entry["queries"], **entry["metrics"]["ndcg@10"]}
    return found


def _mean_figures(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each figure over parts."""
    return {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}


def _mean_of(parts: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each figure over parts; None if a part has none."""
    return {name: _mean([part[name] for part in parts]) for name in parts[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if len(present) == len(values) else None


def _mean_geometry(shapes: Sequence[Geometry]) -> Geometry:
    queries: list[EmbeddingStats] = [shape.queries for shape in shapes if shape.queries is not None]
    return Geometry(
        passages=mean_stats([shape.passages for shape in shapes]),
        queries=mean_stats(queries) if len(queries) == len(shapes) else None,
        alignment=_mean([shape.alignment for shape in shapes]),
        hubness=_mean([shape.hubness for shape in shapes]),
        histograms=added_histograms([shape.histograms for shape in shapes]),
    )


def _shown_ids(dataset: Dataset, evaluations: Mapping[str, Evaluation]) -> list[str]:
    several = len(evaluations) > 1
    return [each for name in evaluations for each in shown_query_ids(name, dataset.parts[name].query_ids, several)]


def _per_query(evaluations: Mapping[str, Evaluation]) -> dict[str, Figures]:
    metrics = next(iter(evaluations.values())).per_query
    return {name: np.concatenate([each.per_query[name] for each in evaluations.values()]) for name in metrics}


def _rankings(dataset: Dataset, evaluations: Mapping[str, Evaluation]) -> Iterator[Ranked]:
    """Yield rankings whose scores fall as distance grows and are equal for equally distant passages."""
    several = len(evaluations) > 1
    for name, evaluation in evaluations.items():
        part = dataset.parts[name]
        shown = shown_query_ids(name, part.query_ids, several)
        for query_id, row, levels in zip(shown, evaluation.ranked, evaluation.levels, strict=True):
            ids = part.corpus.ids(row[row >= 0])
            scores = levels[len(ids) - 1] - levels[: len(ids)] + 1 if ids else levels[:0]
            yield query_id, ids, scores.tolist()
