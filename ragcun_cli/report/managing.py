"""List, remove, restore and rename results. What is removed moves to a trash folder and is never deleted."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.recipe.problems import did_you_mean
from ragcun_cli.report.staleness import staleness
from ragcun_cli.results.json_files import read_json, try_json
from ragcun_cli.results.layout import ISOTROPY, MODEL, OF_DATASET, OF_MODEL, RUN_ENDING, file_record, require_name
from ragcun_cli.results.model_entry import ModelEntry
from ragcun_cli.results.trec_run import rename_run

TRASH = ".trash"


@dataclass(frozen=True)
class Listed:
    """One model on one dataset. state: its model is `as scored`, has `changed`, is `gone` or `unreadable`."""

    model: str
    dataset: str
    split: str
    queries: int | None
    ndcg: float | None
    state: str
    scored: float


def list_results(results: Path) -> list[Listed]:
    """List all results, even those that no table would accept.

    Raises:
        UsageError: if there are none.
    """
    found: list[Listed] = []
    for folder in _folders(results):
        entry, names = ModelEntry.find(folder), _datasets(folder)
        stale = None if entry is None else staleness(entry, [], results)
        state = "as scored" if stale is None else stale.state
        measured = try_json(folder / ISOTROPY)
        for name in names:
            path = folder / f"{name}.json"
            result = try_json(path)
            dataset = result.get("dataset") or {}
            split = dataset.get("split") or (measured.get(name) or {}).get("split", "")
            scored = (path if path.is_file() else folder / ISOTROPY).stat().st_mtime
            ndcg = (result.get("metrics") or {}).get("ndcg@10")
            found.append(Listed(folder.name, name, str(split), dataset.get("queries"), ndcg, state, scored))
    return found


@dataclass(frozen=True)
class Removal:
    """What would be, or was, moved. moves: (from, to) of files and folders. trash: the folder they go to.

    measured: (folder, dataset) of moved isotropy.json entries; the file itself stays if other datasets do.
    """

    moves: tuple[tuple[Path, Path], ...]
    trash: Path
    cells: int
    measured: tuple[tuple[Path, str], ...] = ()


def plan_removal(results: Path, models: Sequence[str], datasets: Sequence[str]) -> Removal:
    """Plan to remove models, or some of their datasets, without changing anything.

    Raises:
        UsageError: if there is no such model or dataset.
    """
    known = [folder.name for folder in _folders(results)]
    trash = results / TRASH / time.strftime("%Y%m%d-%H%M%S")
    moves: list[tuple[Path, Path]] = []
    measured: list[tuple[Path, str]] = []
    cells = 0
    for model in dict.fromkeys(models):
        if model not in known:
            raise UsageError(f"{model}: there are no results with this name; {did_you_mean(model, known)}")
        folder = results / model
        names = _datasets(folder)
        for dataset in datasets:
            if dataset not in names:
                raise UsageError(f"--datasets {dataset}: {model} has no such result; {did_you_mean(dataset, names)}")
        chosen = list(datasets) or names
        cells += len(chosen)
        if set(chosen) == set(names):
            moves.append((folder, trash / model))
            continue
        there = [folder / f"{dataset}{ending}" for dataset in chosen for ending in OF_DATASET]
        moves += [(path, trash / model / path.name) for path in there if path.is_file()]
        measured += [(folder, dataset) for dataset in chosen if dataset in try_json(folder / ISOTROPY)]
    return Removal(tuple(moves), trash, cells, tuple(measured))


def remove(removal: Removal) -> None:
    """Carry out a planned removal."""
    for source, target in removal.moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
    for folder, name in removal.measured:
        measured = try_json(folder / ISOTROPY)
        kept = removal.trash / folder.name / ISOTROPY
        files.write_json(kept, {**try_json(kept), name: measured.pop(name)})
        files.write_json(folder / ISOTROPY, measured)


def restore(trash: Path) -> list[tuple[Path, Path]]:
    """Undo a removal and return (from, to). Isotropy is merged with that of datasets that stayed.

    Raises:
        UsageError: if there is no such folder, or a result was made again in the meantime.
    """
    results = trash.parent.parent
    folders = sorted(path for path in trash.iterdir() if path.is_dir()) if trash.is_dir() else []
    if not folders or trash.parent.name != TRASH:
        raise UsageError(f"{trash}: this is not a folder of removed results", f"Name a folder in RESULTS/{TRASH}/.")
    moves = [
        (path, results / folder.name / path.name)
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.name != ISOTROPY
    ]
    for source, target in moves:
        if target.exists():
            raise UsageError(f"{target}: there is already a new result", f"Remove it first, or leave {source}.")
        now, then = _identity(target.parent), _identity(source.parent)
        if None not in (now, then) and now != then:
            raise UsageError(
                f"{target.parent}: now holds results of another model", f"Remove or rename them, or leave {source}."
            )
    for source, target in moves:
        target.parent.mkdir(exist_ok=True)
        os.rename(source, target)
    for folder in folders:
        if measured := try_json(folder / ISOTROPY):
            there = results / folder.name / ISOTROPY
            files.write_json(there, dict(sorted({**measured, **try_json(there)}.items())))
    files.remove_folder(trash)
    return moves


def _identity(folder: Path) -> str | None:
    """The identity of the model whose results these are; None if no file records it."""
    scored = (try_json(path).get("model", {}) for path in sorted(folder.glob("*.json")) if path.name not in OF_MODEL)
    return next((str(entry["identity"]) for entry in (try_json(folder / MODEL), *scored) if "identity" in entry), None)


def rename(results: Path, old: str, new: str) -> Path:
    """Give a model's results another name, in all of their files, and return the folder.

    Raises:
        UsageError: if there is no such model, or the new name is taken or cannot name a folder.
        DataError: if a file cannot be read.
    """
    known = [folder.name for folder in _folders(results)]
    if old not in known:
        raise UsageError(f"{old}: there are no results with this name; {did_you_mean(old, known)}")
    require_name(new, "")
    folder, target = results / old, results / new
    behind = ModelEntry.read(folder).suffix
    if not new.endswith(behind):
        raise UsageError(f"{new}: `eval beir` adds {behind} to the name of such results", f"Call them {new}{behind}.")
    if target.exists():
        raise UsageError(f"{target} already exists", "Choose another name, or remove it: ragcun results remove")
    with files.new_folder(target) as temporary:
        files.copy_files(folder, temporary)
        for path in sorted(temporary.glob(f"*{RUN_ENDING}")):
            rename_run(path, new)
        for path in sorted(temporary.glob("*.json")):
            _rename_in(path, new)
    files.remove_folder(folder)
    return target


def _rename_in(path: Path, name: str) -> None:
    if path.name == MODEL:
        ModelEntry.read(path.parent).renamed(name).write(path.parent)
    elif path.name != ISOTROPY:
        content = read_json(path)
        try:
            model = ModelEntry.of(content["model"]).renamed(name).content()
        except (KeyError, TypeError):
            raise DataError(f"{path.name}: names no model", "Remove it, or evaluate again.") from None
        files.write_json(path, {**content, "model": model, "files": file_record(path.parent, path.stem)})


def _folders(results: Path) -> list[Path]:
    found = sorted(path for path in results.iterdir() if (path / MODEL).is_file()) if results.is_dir() else []
    if not found:
        raise UsageError(f"{results}: there are no results here", "Name the folder with --results.")
    return found


def _datasets(folder: Path) -> list[str]:
    """The datasets that were scored or measured."""
    scored = [path.stem for path in folder.glob("*.json") if path.name not in OF_MODEL]
    return sorted({*scored, *try_json(folder / ISOTROPY)})
