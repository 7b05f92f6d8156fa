"""A run folder: whose it is, what state it is in, and when a new run may use it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    read_environment,
    read_resolved_recipe,
)
from ragcun_cli.runs.status import FINISHED, RUNNING

CHECKPOINT = re.compile(r"^step-\d{8}$")

DIVERGED = "diverged.json"
OWN_FILES = (ENVIRONMENT, STATUS, METRICS, SPEED, DIVERGED, *POINTER_FILES)
OWN_FOLDERS = (CHECKPOINTS, "trackers", WORKER_LOGS, BEST_MODEL, FINAL_MODEL)


def check_may_train(folder: RunFolder, recipe: Recipe, resume: bool, overwrite: bool) -> None:
    """Refuse early what would be refused later; changes nothing.

    Raises:
        UsageError: if the folder belongs to something else, nothing can be resumed, or a run would be lost.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite cannot be combined", "One resumes the run, the other deletes it.")
    _require_writable(folder.root)
    if not folder.recipe.is_file():
        if _is_foreign(folder.root):
            raise UsageError(
                f"{folder.root}: exists and is not a ragcun run",
                "Choose another folder: --set output_dir=FOLDER",
            )
        return None
    if overwrite:
        return None
    if resume:
        return require_same_recipe(folder, recipe)
    differing = _differing_keys(folder, recipe)
    # The caller holds the folder's lock, so a run that says it is running was killed.
    state = folder.state().replace(RUNNING, "killed")
    if differing:
        cure = "--overwrite deletes it, --set output_dir=FOLDER keeps both."
    elif state == FINISHED:
        cure = "Nothing is left to train. --overwrite deletes it and trains again, --set output_dir=FOLDER keeps it."
    else:
        cure = "--resume continues it, --overwrite deletes it and starts again, --set output_dir=FOLDER keeps it."
    whose = f"another recipe ({_shown(differing)})" if differing else f"this recipe ({state})"
    raise UsageError(f"{folder.root}: holds a run of {whose}", cure)


def _is_foreign(root: Path) -> bool:
    """Whether the folder holds foreign files; those that a killed ragcun left have recognisable names."""
    if not root.is_dir():
        return root.is_file()
    return any(not path.name.startswith(f".{RECIPE}.") for path in root.iterdir())


def _require_writable(root: Path) -> None:
    """Refuse a folder that cannot be written now, not after all texts are encoded."""
    nearest = next(path for path in (root, *root.absolute().parents) if path.exists())
    if nearest.is_dir() and not os.access(nearest, os.W_OK | os.X_OK):
        raise EnvironmentUnfit(f"output_dir: {root}: no write permission in {nearest}", "Try --set output_dir=FOLDER")
    if not nearest.is_dir() and nearest != root:
        raise UsageError(f"output_dir: {root}: {nearest} is a file", "Try --set output_dir=FOLDER")


def require_same_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """Refuse to resume a run that had a different recipe.

    Raises:
        UsageError: naming the keys that differ.
    """
    if differing := _differing_keys(folder, recipe):
        raise UsageError(
            f"{folder.root}: cannot resume because the recipe has changed: {_shown(differing)}",
            "Restore these values, or train into another folder: --set output_dir=FOLDER",
        )


def refuse_early(folder: RunFolder, recipe: Recipe, resume: bool, overwrite: bool) -> None:
    """Run `check_may_train` before anything is read, for callers that do not hold the folder's lock yet.

    Raises:
        UsageError: as `check_may_train` says, and if another process is training into the folder.
    """
    with locked(folder):
        check_may_train(folder, recipe, resume, overwrite)


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Lock the folder for this process; the system releases the lock however the process ends.

    Raises:
        UsageError: if another process is training into it.
    """
    # Not in or beside the folder: if nothing is trained, nothing must be left behind.
    place = hashlib.sha256(f"{os.getuid()} {folder.root.resolve()}".encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"ragcun-{place}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"{folder.root}: another process is training into this folder",
            "Wait for it, stop it, or train into another folder: --set output_dir=FOLDER",
        ) from None
    except OSError as error:  # a link, or somebody else's file: /tmp belongs to all users
        raise EnvironmentUnfit(
            f"{path}: cannot be used as a lock: {error.strerror or error}",
            "Remove it, or set TMPDIR to a folder that only you can write to.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def begin_run(folder: RunFolder, recipe: Recipe, extra: dict[str, Any]) -> None:
    """Drop an earlier run's files, if any, and write what is known at the start.

    Called only when data and model have been read, so that a mistake there destroys no earlier run.
    """
    for path in [*(folder.root / name for name in OWN_FOLDERS), *folder.root.glob("checkpoint_epoch_*")]:
        shutil.rmtree(path, ignore_errors=True)
    for name in OWN_FILES:
        (folder.root / name).unlink(missing_ok=True)
    # The recipe marks the folder as a run's: it is replaced last, once the old run is gone, and is never absent.
    files.write_text(folder.recipe, render_recipe(recipe))
    files.write_json(folder.environment, {**environment(), **extra})


def note_resume(folder: RunFolder, step: int, spread: dict[str, Any]) -> None:
    """Record in environment.json that the run resumed, at which step, where and how."""
    content = read_environment(folder.environment)
    entry = {"step": step, **environment(), "spread": spread}
    files.write_json(folder.environment, {**content, "resumed": [*content.get("resumed", []), entry]})


def run_id_of(folder: RunFolder) -> str:
    """Return the name by which trackers know this run: kept on resume, different for every new run."""
    return str(read_environment(folder.environment)["run_id"])


def require_same_origin(folder: RunFolder, origin: dict[str, str | None]) -> None:
    """Refuse to resume with texts or a base model other than those the run began with.

    Raises:
        UsageError: naming what has changed.
    """
    try:
        recorded = read_environment(folder.environment)["origin"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(f"{folder.environment}: not readable", "Start again with --overwrite.") from None
    changed = [name for name, digest in origin.items() if recorded.get(name) != digest]
    if changed:
        raise UsageError(
            f"{folder.root}: cannot resume because these have changed since the run began: {', '.join(changed)}",
            "Restore the files, or train into another folder: --set output_dir=FOLDER",
        )


def _differing_keys(folder: RunFolder, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    try:
        recorded = read_resolved_recipe(folder.recipe)
    except ValueError as error:
        raise ModelError(f"{folder.recipe}: not readable: {error}", "Start the run again: --overwrite.") from None
    with contextlib.suppress(ValidationError):  # keys that an older ragcun did not have get their defaults
        recorded = Recipe.model_validate(recorded).model_dump()
    wanted = recipe.model_dump()
    keys = sorted((set(wanted) | set(recorded)) - KEYS_THAT_MAY_DIFFER)
    return {key: (recorded.get(key), wanted.get(key)) for key in keys if recorded.get(key) != wanted.get(key)}


def _shown(differing: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} is {there!r} there, {here!r} here" for key, (there, here) in differing.items())


def checkpoints_in(root: Path) -> list[Path]:
    """Return a folder's checkpoints, newest first, complete or not."""
    if not root.is_dir():
        return []
    return sorted((path for path in root.iterdir() if CHECKPOINT.match(path.name)), reverse=True)
