"""`eval beir` and `eval isotropy`: several models on several datasets, each result on disk before the next begins."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ragcun_cli.console import note, saying_if_interrupted
from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.collection import Collection
from ragcun_cli.data.registry import complete_averages
from ragcun_cli.data.triples.prepared import open_triples
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.evaluate.datasets import Dataset
from ragcun_cli.evaluate.embedding import BlockEncoder, Embedded, Embedder
from ragcun_cli.evaluate.geometry import Geometry
from ragcun_cli.evaluate.models import ScoredModel, open_model
from ragcun_cli.evaluate.precision import best_precision
from ragcun_cli.evaluate.progress import EvaluationTable
from ragcun_cli.evaluate.results import (
    check_results_folder,
    claim_results_folder,
    kept_geometry,
    kept_result,
    write_geometry,
    write_results,
)
from ragcun_cli.evaluate.scoring import Evaluation, Scheme, Search, evaluate, measure_only
from ragcun_cli.evaluate.search import DEFAULT_MEMORY, Ranking, merge, search
from ragcun_cli.evaluate.vectors import PassageVectors
from ragcun_cli.evaluate.workers import Workers
from ragcun_cli.files import sha256_of_file
from ragcun_cli.results.dataset_result import DatasetResult
from ragcun_cli.results.model_entry import ModelEntry

INTERRUPTED = "Interrupted. What was encoded or scored is kept: the same command goes on from there."
TRAINING_TEXTS = 100_000  # passages of a training file that a transform is fitted on, at most


@dataclass(frozen=True)
class ModelToScore:
    """A model as asked for; `shown_as` and `max_length` None for its own."""

    source: str
    shown_as: str | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class EvaluationSettings:
    """How all of them are scored.

    schemes: each is a row for each model. memory: bytes for the search. cache_limit: bytes of kept embeddings, None for
    as much as the disk has. processes: None for one a GPU. precision: of the passes through the network.
    """

    schemes: tuple[Scheme, ...] = (Scheme(),)
    memory: int = DEFAULT_MEMORY
    cache_limit: int | None = None
    processes: int | None = None
    precision: str = "float32"
    robustness: bool = True


@dataclass(frozen=True)
class Measured:
    """The shape of one model's embeddings of one dataset, without scores. isotropy: None below four passages."""

    model: ModelEntry
    name: str
    split: str
    queries: int
    isotropy: dict[str, Any] | None
    metrics: dict[str, float] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """For a program."""
        of = {"name": self.name, "split": self.split, "queries": self.queries}
        return {"model": self.model.content(), "dataset": of, "isotropy": self.isotropy}


Made = TypeVar("Made", DatasetResult, Measured)


@dataclass(frozen=True)
class _Row:
    """One model under one scheme: what its results say of it, and where they go."""

    scheme: Scheme
    entry: ModelEntry
    folder: Path


def evaluate_models(
    models: Sequence[ModelToScore],
    datasets: Sequence[Dataset],
    results: Path,
    settings: EvaluationSettings | None = None,
    overwrite: bool = False,
    recompute: bool = False,
) -> list[DatasetResult]:
    """Score each model on each dataset and write what came out; returns all entries.

    Results that are there already of the same model, texts and rules are kept, unless `recompute`.

    Raises:
        UsageError: if a results folder holds another model's results and may not be overwritten.
    """
    settings = settings or EvaluationSettings()

    def work(bench: ModelEvaluator, row: _Row, dataset: Dataset, parts: dict[str, Embedded]) -> DatasetResult:
        found = {name: bench.score(row.scheme, dataset.parts[name], parts[name]) for name in parts}
        claim_results_folder(row.folder, row.entry)
        return write_results(row.folder, row.entry, dataset, found, bench.search_entry())

    def kept(row: _Row, dataset: Dataset) -> DatasetResult | None:
        return None if recompute else kept_result(row.folder, row.entry, dataset, settings.robustness)

    return _each(models, datasets, results, settings, overwrite, work, kept)


def measure_models(
    models: Sequence[ModelToScore],
    datasets: Sequence[Dataset],
    results: Path,
    settings: EvaluationSettings,
    overwrite: bool,
    recompute: bool = False,
) -> list[Measured]:
    """The geometry alone: `results/<model>/isotropy.json` and spectra; returns what was measured."""

    def work(bench: ModelEvaluator, row: _Row, dataset: Dataset, parts: dict[str, Embedded]) -> Measured:
        shapes = {name: bench.measure(row.scheme, dataset.parts[name], parts[name]) for name in parts}
        claim_results_folder(row.folder, row.entry)
        return _measured(row, dataset, write_geometry(row.folder, dataset, shapes))

    def kept(row: _Row, dataset: Dataset) -> Measured | None:
        found = None if recompute else kept_geometry(row.folder, row.entry, dataset)
        return None if found is None else _measured(row, dataset, found)

    return _each(models, datasets, results, settings, overwrite, work, kept)


def _measured(row: _Row, dataset: Dataset, isotropy: dict[str, Any] | None) -> Measured:
    return Measured(row.entry, dataset.name, dataset.split, dataset.queries, isotropy)


def _each(
    models: Sequence[ModelToScore],
    datasets: Sequence[Dataset],
    results: Path,
    settings: EvaluationSettings,
    overwrite: bool,
    work: Callable[[ModelEvaluator, _Row, Dataset, dict[str, Embedded]], Made],
    kept: Callable[[_Row, Dataset], Made | None],
) -> list[Made]:
    """Embed each dataset once for each model, then `work` on it for each of the model's rows that is not `kept`."""
    plan = _plan(models, datasets, results, settings, overwrite)
    done = {(row.folder, dataset.name): kept(row, dataset) for rows in plan for dataset in datasets for row in rows}
    if found := sum(each is not None for each in done.values()):
        note(
            f"{found} of {len(done)} results are up to date (same models, texts and rules) and were reused; "
            "--recompute scores them again."
        )
    labels = [_label(row, dataset) for rows in plan for dataset in datasets for row in rows]
    with saying_if_interrupted(INTERRUPTED), EvaluationTable(labels) as table:
        for rows, dataset in ((rows, dataset) for rows in plan for dataset in datasets):
            for row in rows:
                if (result := done[row.folder, dataset.name]) is not None:
                    claim_results_folder(row.folder, row.entry)  # the same model may lie elsewhere by now
                    table.keep(_label(row, dataset), result.metrics, result.isotropy)
        for asked, rows in zip(models, plan, strict=True):
            left = {dataset.name: [row for row in rows if done[row.folder, dataset.name] is None]
                    for dataset in datasets}  # fmt: skip
            if not any(left.values()):
                continue
            with open_evaluator(asked, settings) as bench:
                to_fit = {row.scheme.fit_on for some in left.values() for row in some if _fits_on_file(row.scheme)}
                bench.fit({name: _training_passages(Path(name)) for name in sorted(to_fit)})
                for dataset in (each for each in datasets if left[each.name]):
                    bench.release()
                    table.begin(_label(left[dataset.name][0], dataset), dataset.texts)
                    parts = {name: bench.embed(part, table.advance) for name, part in dataset.parts.items()}
                    for row in left[dataset.name]:
                        table.searching(_label(row, dataset))
                        bench.on_share = table.searched
                        result = work(bench, row, dataset, parts)
                        done[row.folder, dataset.name] = result
                        table.finish(_label(row, dataset), result.metrics, result.isotropy)
    return [each for each in done.values() if each is not None]


def averages(results: Sequence[DatasetResult]) -> list[dict[str, Any]]:
    """nDCG@10 of each model over each set of datasets that is complete; over an incomplete one there is no average."""
    by_model: dict[str, dict[str, float]] = {}
    for result in results:
        by_model.setdefault(result.model.name, {})[result.name] = result.metrics["ndcg@10"]
    return [
        {
            "model": model,
            "over": label,
            "datasets": len(members),
            "ndcg@10": float(np.mean([scores[m] for m in members])),
        }
        for model, scores in by_model.items()
        for label, members in complete_averages(scores).items()
    ]


class ModelEvaluator:
    """One opened model with what it takes to embed, search and score."""

    def __init__(self, model: ScoredModel, settings: EvaluationSettings, workers: Workers | None) -> None:
        self.entry = model.entry
        self._settings = settings
        self._workers = workers
        self._embedder = Embedder(model, cache_folder(), workers, settings.cache_limit)
        self._device = str(model.encoder.device)
        self._fits: dict[str, PassageVectors] = {}  # what transforms are fitted on, by file
        self.on_share: Callable[[float], None] | None = None  # what a search here calls as it goes

    def embed(self, part: Collection, on_done: Callable[[int], None]) -> Embedded:
        """All passages and queries; `on_done(count)` is called as texts are there."""
        return self._embedder.embed(part, on_done)

    def score(self, scheme: Scheme, part: Collection, embedded: Embedded) -> Evaluation:
        fit, find = self._fit(scheme, embedded), self.search()
        return evaluate(embedded, part, scheme, fit, find, self._settings.robustness, cache_folder())

    def measure(self, scheme: Scheme, part: Collection, embedded: Embedded) -> Geometry | None:
        return measure_only(embedded, part, scheme, self._fit(scheme, embedded), self.search(), cache_folder())

    def search_entry(self) -> dict[str, Any]:
        return {
            "precision": best_precision(self._device).name,
            "memory": self._settings.memory,
            "processes": len(self._workers.devices) if self._workers is not None else 1,
        }

    def fit(self, texts: dict[str, list[str]]) -> None:
        """Embed what transforms are fitted on, by file."""
        self._fits = {name: self._embedder.embed_texts(passages) for name, passages in texts.items()}

    def release(self) -> None:
        self._embedder.release()

    def _fit(self, scheme: Scheme, embedded: Embedded) -> PassageVectors | None:
        """None for the corpus itself."""
        fit = self._fits[scheme.fit_on] if _fits_on_file(scheme) else None
        texts, dimensions = len(embedded.passages if fit is None else fit), embedded.passages.dimensions
        if scheme.transform.kind == "whiten" and texts <= dimensions:
            note(f"{scheme.transform.name} is fitted on {texts} passages of {dimensions} dimensions: far too few.")
        return fit

    def search(self) -> Search:
        """(queries, passages, k) -> ranking, wherever this bench searches."""
        memory = self._settings.memory
        if self._workers is None:
            return functools.partial(search, memory=memory, device=self._device, on_share=self.on_share)
        return functools.partial(_search_elsewhere, self._workers, memory)


@contextlib.contextmanager
def open_evaluator(asked: ModelToScore, settings: EvaluationSettings) -> Iterator[ModelEvaluator]:
    """A model, and as many processes as the settings say."""
    model = _open(asked, settings.precision, None)
    devices = _devices(settings.processes)
    if len(devices) < 2:
        yield ModelEvaluator(model, settings, None)
        return
    with Workers(devices, _block_encoder, (asked, settings.precision, cache_folder())) as workers:
        yield ModelEvaluator(model, settings, workers)


def _open(asked: ModelToScore, precision: str, device: str | None) -> ScoredModel:
    return open_model(asked.source, asked.max_length, asked.shown_as, precision, device)


def _block_encoder(asked: ModelToScore, precision: str, cache: Path, device: str) -> BlockEncoder:
    return BlockEncoder(_open(asked, precision, device), cache)


def _devices(processes: int | None) -> list[str]:
    gpus = torch.cuda.device_count()
    if processes is None:
        processes = max(gpus, 1)
    if gpus and processes > gpus:
        raise EnvironmentUnfit(f"--processes {processes}: there are {gpus} GPUs here", "Each process takes one.")
    if not gpus and processes > (os.cpu_count() or 1):
        raise EnvironmentUnfit(f"--processes {processes}: there are {os.cpu_count()} CPU cores here", "Give no more.")
    return [f"cuda:{number}" if gpus else "cpu" for number in range(processes)]


def _search_elsewhere(workers: Workers, memory: int, queries: Any, passages: PassageVectors, k: int) -> Ranking:
    """Each process searches its part of the passages; the k nearest of all are among theirs."""
    parts = len(workers.devices)
    cuts = [len(passages) * number // parts for number in range(parts + 1)]
    some = [passages.part(start, stop) for start, stop in itertools.pairwise(cuts) if stop > start]
    found = workers.each(_search_part, [(queries, part, k, memory // parts) for part in some])
    return merge(queries, passages, k, found)


def _search_part(prepared: BlockEncoder, queries: Any, passages: PassageVectors, k: int, memory: int) -> Ranking:
    return search(queries, passages, k, memory=memory, device=prepared.device)


def _fits_on_file(scheme: Scheme) -> bool:
    return scheme.fit_on != "corpus" and scheme.transform.needs_fit


def _training_passages(path: Path) -> list[str]:
    """Distinct positives and negatives, evenly from the whole file."""
    table, _ = open_triples(path)
    passages = table.passages()
    some = np.linspace(0, len(passages) - 1, min(len(passages), TRAINING_TEXTS)).astype(np.int64)
    return [table.texts[number] for number in passages[some].tolist()]


def _plan(
    models: Sequence[ModelToScore],
    datasets: Sequence[Dataset],
    results: Path,
    settings: EvaluationSettings,
    overwrite: bool,
) -> list[list[_Row]]:
    """The rows of each model. Every model is opened before the first is scored: a wrong one costs seconds."""
    plan = []
    for asked in models:
        model = _open(asked, settings.precision, None)
        rows = []
        for scheme in settings.schemes:
            entry = _entry(model.entry, scheme)
            rows.append(_Row(scheme, entry, check_results_folder(results, entry, datasets, overwrite)))
        plan.append(rows)
    _devices(settings.processes)
    folders = [(asked.source, row.folder) for asked, rows in zip(models, plan, strict=True) for row in rows]
    for (first, one), (second, other) in itertools.combinations(folders, 2):
        if one == other:
            raise UsageError(
                f"--model: {first} and {second} would both be {one}",
                "Evaluate them one at a time, each with its --name.",
            )
    return plan


def _entry(model: ModelEntry, scheme: Scheme) -> ModelEntry:
    transform = scheme.transform
    if transform.kind == "truncate" and transform.amount > model.output_dim:
        raise UsageError(f"--transform {transform.name}: {model.name} has {model.output_dim} dimensions")
    return dataclasses.replace(
        model,
        name=model.name + scheme.suffix,
        output_dim=int(transform.amount) if transform.kind == "truncate" else model.output_dim,
        similarity=scheme.similarity,
        transform=transform.name,
        fit_on=scheme.fit_on if transform.needs_fit else None,
        fit_sha256=sha256_of_file(Path(scheme.fit_on)) if _fits_on_file(scheme) else None,
    )


def _label(row: _Row, dataset: Dataset) -> str:
    return f"{row.entry.name} on {dataset.scored}"
