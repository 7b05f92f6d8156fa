"""Read `results/` into one entry per model, and refuse to compare what is not comparable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.report.staleness import ScoredDataset, Stale, staleness
from ragcun_cli.results.dataset_result import DatasetResult
from ragcun_cli.results.isotropy import IsotropyEntry, SideIsotropy, read_isotropy
from ragcun_cli.results.layout import MODEL, OF_MODEL, QUERIES_ENDING
from ragcun_cli.results.model_entry import ModelEntry


@dataclass(frozen=True)
class ModelResults:
    """One model on all its datasets.

    entry: model.json. geometry: dataset -> what isotropy.json says about it. stale: set if another model is now at its
    place, or none is.
    """

    name: str
    folder: Path
    entry: ModelEntry
    datasets: dict[str, DatasetResult]
    geometry: dict[str, IsotropyEntry]
    stale: Stale | None = None

    @property
    def untouched(self) -> bool:
        """Whether it is an encoder as its authors made it, without a transform."""
        return self.entry.kind == "untouched" and self.entry.transform == "none"

    @property
    def arm(self) -> dict[str, Any]:
        """The recipe, as far as the result records it; empty for an encoder that ragcun did not train."""
        return self.entry.arm or {}

    @property
    def seed(self) -> int | None:
        """The training seed; None for an encoder that ragcun did not train."""
        seed: int | None = self.arm.get("seed")
        return seed

    def isoscore(self, dataset: str) -> float | None:
        """The passages' IsoScore; None if it was not measured."""
        passages = self.side(dataset, "passages")
        return None if passages is None else passages.isoscore

    def side(self, dataset: str, name: str) -> SideIsotropy | None:
        """The measurements of `passages` or `queries`; None if there are none."""
        entry = self.geometry.get(dataset)
        return None if entry is None else entry.measured.side(name)


def collect(results: Path) -> list[ModelResults]:
    """Read all models with results: untouched encoders first, then arms by what they add to the baseline.

    Raises:
        UsageError: if there are no results.
        DataError: if a result cannot be read or is not finite, two folders claim one name, or a dataset's results are
            based on different texts, judgements or rules.
    """
    _require_folder(results)
    models = [found for folder in _folders(results) if (found := _read_model(folder)) is not None]
    if not models:
        raise UsageError(
            f"{results}: there are no results here",
            "Score a model first: ragcun eval beir --model MODEL --datasets NAME (or name the folder with --results)",
        )
    _require_names(models)
    _require_same_texts(models)
    return sorted(models, key=_order)


def _require_folder(results: Path) -> None:
    if results.is_symlink():
        results.stat()  # raises the system's own error if the link is broken or circular
    if results.is_file():
        raise UsageError(f"--results {results} is a file", "Name the folder that `ragcun eval beir` wrote to.")
    if not _folders(results) and _folders(results / "results"):
        raise UsageError(f"{results}: there are no results here", f"Try --results {results / 'results'}.")
    for folder in results.iterdir() if results.is_dir() else ():
        if not (folder / MODEL).is_file() and any(folder.glob(f"*{QUERIES_ENDING}")):
            raise DataError(f"{folder}: has results, but no {MODEL} naming the model", "Evaluate again, or remove it.")


def has_results(results: Path) -> bool:
    """Whether any model was scored there."""
    return bool(_folders(results))


def _folders(results: Path) -> list[Path]:
    if not results.is_dir():
        return []
    return sorted(path for path in results.iterdir() if (path / MODEL).is_file())


def _read_model(folder: Path) -> ModelResults | None:
    entry = ModelEntry.read(folder)
    paths = [path for path in sorted(folder.glob("*.json")) if path.name not in OF_MODEL]
    found = [_read_result(path, entry) for path in paths]
    geometry = read_isotropy(folder)
    if not found and not geometry:
        return None
    datasets = {result.name: result for result in found}
    scored = [ScoredDataset(each.name, each.split, each.dataset.found_at) for each in found]
    scored += [ScoredDataset(name, of.split) for name, of in geometry.items() if name not in datasets]
    stale = staleness(entry, scored, folder.parent)
    return ModelResults(entry.name, folder, entry, datasets, geometry, stale)


def _read_result(path: Path, entry: ModelEntry) -> DatasetResult:
    result = DatasetResult.read(path)
    if result.model.identity != entry.identity:
        raise DataError(f"{path}: its weights are not those that {path.with_name(MODEL)} names", "Evaluate again.")
    return result


def _require_names(models: list[ModelResults]) -> None:
    first: dict[str, ModelResults] = {}
    for model in models:
        other = first.setdefault(model.name, model)
        if other is not model:
            raise DataError(
                f"{other.folder} and {model.folder} both call their model {model.name!r}",
                "Every row of a table needs its own name: remove one, or evaluate it again with --name.",
            )


def _require_same_texts(models: list[ModelResults]) -> None:
    """Check the texts of scores and of isotropy, which may have been measured separately."""
    first: dict[str, tuple[str, str, str]] = {}
    for model in models:
        stated = [(name, result.split, result.sha256) for name, result in model.datasets.items()]
        stated += [(name, entry.split, entry.sha256) for name, entry in model.geometry.items()]
        for dataset, split, sha256 in stated:
            other, other_split, other_sha256 = first.setdefault(dataset, (model.name, split, sha256))
            if (other_split, other_sha256) != (split, sha256):
                raise DataError(
                    f"{dataset}: {other} ({other_split}, {other_sha256[:12]}…) and {model.name} ({split}, "
                    f"{sha256[:12]}…) were scored or measured on different texts or judgements",
                    "Evaluate both again on the same files; their figures must not share a column.",
                )
    _require_same_rules(models)


def _require_same_rules(models: list[ModelResults]) -> None:
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    for model in models:
        for dataset, result in model.datasets.items():
            rules = {**result.rules_of_column, "format": result.format}
            other, other_rules = first.setdefault(dataset, (model.name, rules))
            differing = [key for key in {*other_rules, *rules} if other_rules.get(key) != rules.get(key)]
            if differing:
                key = min(differing)
                raise DataError(
                    f"{dataset}: {other} and {model.name} were scored by different rules: {key} is "
                    f"{other_rules.get(key)!r} and {rules.get(key)!r}",
                    "Evaluate both again with one version of ragcun; their figures must not share a column.",
                )


def _order(model: ModelResults) -> tuple[Any, ...]:
    arm = model.arm
    return (
        not model.untouched,
        bool(arm),
        bool(arm.get("freeze_base", False)),
        float(arm.get("lambda_isotropy", 0)),
        float(arm.get("lambda_reg", 0)),
        model.name,
    )
