"""`eval beir` and `eval isotropy`: several models on several datasets, each result on disk before the next begins."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from ragcun_cli.console import note, saying_if_interrupted
from ragcun_cli.data.registry import complete_averages
from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate.datasets import Dataset
from ragcun_cli.evaluate.embedding import Embedded
from ragcun_cli.evaluate.evaluator import (
    EvaluationSettings,
    ModelEvaluator,
    ModelToScore,
    devices_for,
    fits_on_file,
    open_asked,
    open_evaluator,
)
from ragcun_cli.evaluate.progress import EvaluationTable
from ragcun_cli.evaluate.results import (
    check_results_folder,
    claim_results_folder,
    kept_geometry,
    kept_result,
    write_geometry,
    write_results,
)
from ragcun_cli.evaluate.scoring import Scheme
from ragcun_cli.files import sha256_of_file
from ragcun_cli.results.dataset_result import DatasetResult
from ragcun_cli.results.isotropy import MeasuredIsotropy
from ragcun_cli.results.model_entry import ModelEntry

INTERRUPTED = "Interrupted. What was encoded or scored is kept: the same command continues from there."


@dataclass(frozen=True)
class Measured:
    """The shape of one model's embeddings of one dataset, without scores. isotropy: None below four passages."""

    model: ModelEntry
    name: str
    split: str
    queries: int
    isotropy: MeasuredIsotropy | None
    metrics: dict[str, float] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Return the content for a program to read."""
        isotropy = None if self.isotropy is None else self.isotropy.content()
        of = {"name": self.name, "split": self.split, "queries": self.queries}
        return {"model": self.model.content(), "dataset": of, "isotropy": isotropy}


@dataclass(frozen=True)
class _Cell:
    """One model under one scheme on one dataset. entry: what the result says of the model; folder: where it goes."""

    model: ModelToScore
    scheme: Scheme
    entry: ModelEntry
    folder: Path
    dataset: Dataset

    @property
    def label(self) -> str:
        """How the table on the terminal names it."""
        return f"{self.entry.name} on {self.dataset.scored}"


def evaluate_models(
    models: Sequence[ModelToScore],
    datasets: Sequence[Dataset],
    results: Path,
    settings: EvaluationSettings | None = None,
    overwrite: bool = False,
    recompute: bool = False,
) -> list[DatasetResult]:
    """Score each model on each dataset and write what came out; return all results.

    Existing results of the same model, texts and rules are kept, unless `recompute`.

    Raises:
        UsageError: if a results folder holds another model's results and may not be overwritten.
    """
    settings = settings or EvaluationSettings()
    sweep: _Sweep[DatasetResult] = _Sweep(_plan(models, datasets, results, settings, overwrite), settings)
    for cell in [] if recompute else sweep.cells:
        sweep.keep(cell, kept_result(cell.folder, cell.entry, cell.dataset, settings.robustness))
    with sweep:
        for evaluator, cell, parts in sweep.left():
            scored = {name: evaluator.score(cell.scheme, cell.dataset.parts[name], parts[name]) for name in parts}
            claim_results_folder(cell.folder, cell.entry)
            written = write_results(cell.folder, cell.entry, cell.dataset, scored, evaluator.search_entry())
            sweep.finish(cell, written)
    return sweep.results()


def measure_models(
    models: Sequence[ModelToScore],
    datasets: Sequence[Dataset],
    results: Path,
    settings: EvaluationSettings,
    overwrite: bool,
    recompute: bool = False,
) -> list[Measured]:
    """Measure the embeddings' shape alone: write `results/<model>/isotropy.json` and spectra; return the figures."""
    sweep: _Sweep[Measured] = _Sweep(_plan(models, datasets, results, settings, overwrite), settings)
    for cell in [] if recompute else sweep.cells:
        found = kept_geometry(cell.folder, cell.entry, cell.dataset)
        sweep.keep(cell, None if found is None else _measured(cell, found))
    with sweep:
        for evaluator, cell, parts in sweep.left():
            shapes = {name: evaluator.measure(cell.scheme, cell.dataset.parts[name], parts[name]) for name in parts}
            claim_results_folder(cell.folder, cell.entry)
            sweep.finish(cell, _measured(cell, write_geometry(cell.folder, cell.dataset, shapes)))
    return sweep.results()


def _measured(cell: _Cell, isotropy: MeasuredIsotropy | None) -> Measured:
    dataset = cell.dataset
    return Measured(cell.entry, dataset.name, dataset.split, dataset.queries, isotropy)


Made = TypeVar("Made", DatasetResult, Measured)


class _Sweep(Generic[Made]):
    """The cells of an evaluation, shown in a live table: what was kept, what is left, and what has been made.

    In its `with` block models are open one at a time, and Ctrl-C says that the same command continues.
    """

    def __init__(self, cells: list[_Cell], settings: EvaluationSettings) -> None:
        self.cells = cells
        self._settings = settings
        self._made: dict[tuple[Path, str], Made | None] = {_key(cell): None for cell in cells}
        self._open = contextlib.ExitStack()

    def keep(self, cell: _Cell, result: Made | None) -> None:
        """Take a result that is up to date; None for a cell that is still to be made."""
        self._made[_key(cell)] = result

    def __enter__(self) -> None:
        if kept := sum(result is not None for result in self._made.values()):
            note(
                f"{kept} of {len(self._made)} results are up to date (same models, texts and rules) and were reused; "
                "--recompute scores them again."
            )
        self._open.enter_context(saying_if_interrupted(INTERRUPTED))
        self._table = self._open.enter_context(EvaluationTable([cell.label for cell in self.cells]))
        for cell in self.cells:
            if (result := self._made[_key(cell)]) is not None:
                claim_results_folder(cell.folder, cell.entry)  # the same model may have moved by now
                self._table.keep(cell.label, result.metrics, result.isotropy)

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def left(self) -> Iterator[tuple[ModelEvaluator, _Cell, dict[str, Embedded]]]:
        """Yield each cell that was not kept, with its model opened and its dataset embedded once for all schemes."""
        left = [cell for cell in self.cells if self._made[_key(cell)] is None]
        for model, of_model in itertools.groupby(left, key=attrgetter("model")):
            cells = list(of_model)
            with contextlib.ExitStack() as opened:
                # Also where the caller's loop is left by an error, which this generator would not hear of.
                self._open.push(opened)
                evaluator = opened.enter_context(open_evaluator(model, self._settings))
                evaluator.fit([cell.scheme for cell in cells])
                for dataset, of_dataset in itertools.groupby(cells, key=attrgetter("dataset")):
                    evaluator.release()
                    some = list(of_dataset)
                    self._table.begin(some[0].label, dataset.texts)
                    parts = {name: evaluator.embed(part, self._table.advance) for name, part in dataset.parts.items()}
                    for cell in some:
                        self._table.searching(cell.label)
                        evaluator.on_share = self._table.searched
                        yield evaluator, cell, parts

    def finish(self, cell: _Cell, result: Made) -> None:
        """Take what was made of a cell; it is on disk."""
        self._made[_key(cell)] = result
        self._table.finish(cell.label, result.metrics, result.isotropy)

    def results(self) -> list[Made]:
        """Return all results, in the order of the cells."""
        return [result for result in self._made.values() if result is not None]


def _key(cell: _Cell) -> tuple[Path, str]:
    return cell.folder, cell.dataset.name


def averages(results: Sequence[DatasetResult]) -> list[dict[str, Any]]:
    """Average each model's nDCG@10 over each set of datasets that is complete; an incomplete one gets no average."""
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


def _plan(
    models: Sequence[ModelToScore],
    datasets: Sequence[Dataset],
    results: Path,
    settings: EvaluationSettings,
    overwrite: bool,
) -> list[_Cell]:
    """List all cells. Every model is opened before the first is scored: a wrong one costs seconds."""
    cells, asked_for = [], []
    for asked in models:
        model = open_asked(asked, settings.precision)
        rows = []
        for scheme in settings.schemes:
            entry = _entry(model.entry, scheme)
            folder = check_results_folder(results, entry, datasets, overwrite)
            rows.append((scheme, entry, folder))
            asked_for.append((asked.source, folder))
        cells += [_Cell(asked, *row, dataset) for dataset in datasets for row in rows]
    devices_for(settings.processes)
    for (first, one), (second, other) in itertools.combinations(asked_for, 2):
        if one == other:
            raise UsageError(
                f"--model: {first} and {second} would both write to {one}",
                "Evaluate them one at a time, each with its own --name.",
            )
    return cells


def _entry(model: ModelEntry, scheme: Scheme) -> ModelEntry:
    transform = scheme.transform
    if transform.kind == "truncate" and transform.amount > model.output_dim:
        raise UsageError(f"--transform {transform.name}: {model.name} has only {model.output_dim} dimensions")
    return dataclasses.replace(
        model,
        name=model.name + scheme.suffix,
        output_dim=int(transform.amount) if transform.kind == "truncate" else model.output_dim,
        similarity=scheme.similarity,
        transform=transform.name,
        fit_on=scheme.fit_on if transform.needs_fit else None,
        fit_sha256=sha256_of_file(Path(scheme.fit_on)) if fits_on_file(scheme) else None,
    )
