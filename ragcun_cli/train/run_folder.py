"""A run's folder: whose it is, what state it is in, and when a new run may have it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from pydantic import ValidationError

from ragcun_cli import files
from ragcun_cli.environment import environment
from ragcun_cli.errors import EnvironmentUnfit, ModelError, UsageError
from ragcun_cli.model.native_use import POINTER_FILES
from ragcun_cli.recipe.comparing import KEYS_THAT_MAY_DIFFER
from ragcun_cli.recipe.rendering import render_recipe
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import (
    BEST_MODEL,
    CHECKPOINTS,
    ENVIRONMENT,
    FINAL_MODEL,
    METRICS,
    RECIPE,
    SPEED,
    STATUS,
    WORKER_LOGS,
    RunFolder,
)

CHECKPOINT = re.compile(r"^step-\d{8}$")

DIVERGED = "diverged.json"
MODEL_ORIGIN = "training.json"  # in a model folder: the step that it is of
OWN_FILES = (ENVIRONMENT, STATUS, METRICS, SPEED, DIVERGED, *POINTER_FILES)
OWN_FOLDERS = (CHECKPOINTS, "trackers", WORKER_LOGS, BEST_MODEL, FINAL_MODEL)


def check_may_train(folder: RunFolder, recipe: Recipe, resume: bool, overwrite: bool) -> None:
    """Refuse early what would refuse later; changes nothing.

    Raises:
        UsageError: if the folder is another's, or there is nothing to resume, or a run would be lost.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other", "One continues the run, the other drops it.")
    _require_writable(folder.root)
    if not folder.recipe.is_file():
        if _is_foreign(folder.root):
            raise UsageError(
                f"{folder.root}: exists and is not a run of ragcun",
                "Choose another folder: --set output_dir=FOLDER",
            )
        return None
    if overwrite:
        return None
    if resume:
        return require_same_recipe(folder, recipe)
    differing = _differing_keys(folder, recipe)
    # Who calls this holds the folder's lock: a run that says it is running was killed.
    state = folder.state().replace("running", "killed")
    if differing:
        cure = "--overwrite drops it, --set output_dir=FOLDER keeps both."
    elif state == "finished":
        cure = "It has nothing left to train. --overwrite drops it and trains again, --set output_dir=FOLDER keeps it."
    else:
        cure = "--resume continues it, --overwrite drops it and starts again, --set output_dir=FOLDER keeps it."
    whose = f"another recipe ({_shown(differing)})" if differing else f"this recipe ({state})"
    raise UsageError(f"{folder.root}: holds a run of {whose}", cure)


def _is_foreign(root: Path) -> bool:
    """Whether somebody else's files are there; what a killed ragcun left has a name of its own kind."""
    if not root.is_dir():
        return root.is_file()
    return any(not path.name.startswith(f".{RECIPE}.") for path in root.iterdir())


def _require_writable(root: Path) -> None:
    """Find out now, and not when all texts are encoded."""
    nearest = next(path for path in (root, *root.absolute().parents) if path.exists())
    if nearest.is_dir() and not os.access(nearest, os.W_OK | os.X_OK):
        raise EnvironmentUnfit(f"output_dir: {root}: no permission to write in {nearest}", "--set output_dir=FOLDER")
    if not nearest.is_dir() and nearest != root:
        raise UsageError(f"output_dir: {root}: {nearest} is a file", "--set output_dir=FOLDER")


def require_same_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """Refuse to go on with a run whose recipe was another.

    Raises:
        UsageError: naming the keys that differ.
    """
    if differing := _differing_keys(folder, recipe):
        raise UsageError(
            f"{folder.root}: cannot resume, the recipe has changed: {_shown(differing)}",
            "Restore these values, or train into another folder: --set output_dir=FOLDER",
        )


def refuse_early(folder: RunFolder, recipe: Recipe, resume: bool, overwrite: bool) -> None:
    """`check_may_train` before anything is read, by who does not yet hold the folder's lock.

    Raises:
        UsageError: as that says, and if another process trains into the folder.
    """
    with locked(folder):
        check_may_train(folder, recipe, resume, overwrite)


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Keep the folder to this process; the system frees it whatever ends the process.

    Raises:
        UsageError: if another process trains into it.
    """
    # Not in or beside the folder: where nothing is trained, nothing must be left.
    place = hashlib.sha256(f"{os.getuid()} {folder.root.resolve()}".encode()).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"ragcun-{place}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"{folder.root}: another process is training into this folder",
            "Wait for it, stop it, or train into another folder: --set output_dir=FOLDER",
        ) from None
    try:
        yield
    finally:
        lock.release()


def begin_run(folder: RunFolder, recipe: Recipe, extra: dict[str, Any]) -> None:
    """Drop an earlier run's files, if any, and write what is known at the start.

    Called only when data and model have been read, so that a mistake there costs no earlier run.
    """
    for path in [*(folder.root / name for name in OWN_FOLDERS), *folder.root.glob("checkpoint_epoch_*")]:
        shutil.rmtree(path, ignore_errors=True)
    for name in OWN_FILES:
        (folder.root / name).unlink(missing_ok=True)
    # The recipe makes the folder a run's: it is replaced when nothing of the old run is left, and never absent.
    files.write_text(folder.recipe, render_recipe(recipe))
    files.write_json(folder.environment, {**environment(), **extra})


def note_resume(folder: RunFolder, step: int, spread: dict[str, Any]) -> None:
    """Let environment.json tell that, where and how the run went on."""
    content = json.loads(folder.environment.read_text(encoding="utf-8"))
    entry = {"step": step, **environment(), "spread": spread}
    files.write_json(folder.environment, {**content, "resumed": [*content.get("resumed", []), entry]})


def run_id_of(folder: RunFolder) -> str:
    """The name that trackers know this run by: the same after a resume, another one for every new run."""
    recorded = json.loads(folder.environment.read_text(encoding="utf-8"))
    return str(recorded["run_id"])


def require_same_origin(folder: RunFolder, origin: dict[str, str | None]) -> None:
    """Refuse to resume on other texts or another base model than the run began with.

    Raises:
        UsageError: naming what has changed.
    """
    try:
        recorded = json.loads(folder.environment.read_text(encoding="utf-8"))["origin"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(f"{folder.environment}: not readable", "Start again with --overwrite.") from None
    changed = [name for name, digest in origin.items() if recorded.get(name) != digest]
    if changed:
        raise UsageError(
            f"{folder.root}: cannot resume, these have changed since the run began: {', '.join(changed)}",
            "Restore the files, or train into another folder: --set output_dir=FOLDER",
        )


def _differing_keys(folder: RunFolder, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    try:
        recorded = yaml.safe_load(folder.recipe.read_text(encoding="utf-8"))
        if not isinstance(recorded, dict):
            raise ValueError("not a mapping")
    except (ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{folder.recipe}: not readable: {reason}", "Start the run again: --overwrite.") from None
    with contextlib.suppress(ValidationError):  # keys that an older ragcun did not have get their defaults
        recorded = Recipe.model_validate(recorded).model_dump()
    wanted = recipe.model_dump()
    keys = sorted((set(wanted) | set(recorded)) - KEYS_THAT_MAY_DIFFER)
    return {key: (recorded.get(key), wanted.get(key)) for key in keys if recorded.get(key) != wanted.get(key)}


def _shown(differing: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} {there!r} there, {here!r} here" for key, (there, here) in differing.items())


def checkpoints_in(root: Path) -> list[Path]:
    """Newest first, whole or not."""
    if not root.is_dir():
        return []
    return sorted((path for path in root.iterdir() if CHECKPOINT.match(path.name)), reverse=True)
