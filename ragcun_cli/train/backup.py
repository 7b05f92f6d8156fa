"""A run's backup: checkpoints and final models are copied in a thread, and fetched back if the disk has lost them.

Where its parts lie says `storage/snapshots.py`. What goes wrong is said and tried again; it never stops training.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ragcun_cli import files
from ragcun_cli.console import note
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import MODEL_ORIGIN, RunFolder
from ragcun_cli.runs.status import FINISHED, Progress, Status
from ragcun_cli.safe_paths import UnsafeName, safe_join
from ragcun_cli.storage.snapshots import (
    CHECKPOINTS,
    FINAL,
    MODELS,
    RUN,
    STATUS,
    best_key,
    fetch_folder,
    folders_in,
    remove_folder,
    snapshot,
    upload_folder,
    upload_snapshot,
)
from ragcun_cli.storage.stores import FolderStore, ObjectStore, open_store
from ragcun_cli.train.checkpoint import RUN_FILES, newest_valid, restore_run_files

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between attempts; doubled each time


class Backup(Protocol):
    """The interface between training and its backup."""

    def checkpoint_is_there(self, folder: Path) -> None:
        """Copy this complete checkpoint when there is time."""

    def models_are_there(self, progress: Progress) -> None:
        """Copy the models of the finished run."""

    def close(self, seconds: float) -> None:
        """Wait at most `seconds` for what is still to be copied, and report if it is not."""


class NoBackup:
    """The backup of a recipe that has none: does nothing."""

    def checkpoint_is_there(self, folder: Path) -> None:
        pass

    def models_are_there(self, progress: Progress) -> None:
        pass

    def close(self, seconds: float) -> None:
        pass


def store_of(recipe: Recipe, folder: RunFolder) -> ObjectStore | None:
    """Return where the recipe's run is backed up, or None if it is not."""
    return None if recipe.backup is None else open_store(recipe.backup, files.given_name(folder.root))


def open_backup(recipe: Recipe, folder: RunFolder) -> Backup:
    """Open the backup of a run that starts or resumes."""
    store = store_of(recipe, folder)
    return NoBackup() if store is None else BackupThread(store, folder, recipe.keep_last)


def look_at_backup(recipe: Recipe, folder: RunFolder, resume: bool, overwrite: bool) -> None:
    """Prepare for a run: fetch what `--resume` needs if it is not on disk, and check that no other run is there.

    Raises:
        EnvironmentUnfit: if the backup cannot be used.
        UsageError: if it holds a run that would be mixed with this one.
    """
    store = store_of(recipe, folder)
    if store is None:
        return
    if isinstance(store, FolderStore) and _nested(store.root, folder.root):
        raise UsageError(
            f"backup: {store.root} and the run folder {folder.root} overlap: one is inside the other",
            "Name a folder on another disk, or an S3 address.",
        )
    store.check()
    if resume:
        if folder.state() != FINISHED and newest_valid(folder.checkpoints)[0] is None:
            _fetch(store, folder)
    elif not overwrite and folders_in(store, ""):
        raise UsageError(
            f"backup: {recipe.backup} already holds a run named {files.given_name(folder.root)}",
            "--resume continues it, --overwrite deletes it, --set output_dir=FOLDER uses another name.",
        )


def _nested(one: Path, other: Path) -> bool:
    one, other = one.resolve(), other.resolve()
    return one == other or one in other.parents or other in one.parents


def drop_backup(recipe: Recipe, folder: RunFolder) -> None:
    """Remove what an earlier run of this name left, before a new one begins."""
    store = store_of(recipe, folder)
    if store is None:
        return
    # The status first: if interrupted, what is left without it counts as nothing.
    store.delete([STATUS])
    for key in folders_in(store, ""):
        remove_folder(store, key)
    store.delete(store.keys(""))


def _fetch(store: ObjectStore, folder: RunFolder) -> None:
    try:
        status = Status.parse(store.read(STATUS))
        if status is not None and status.state == FINISHED and FINAL in folders_in(store, MODELS):
            return _fetch_finished(store, folder, status)
        _fetch_newest(store, folder)
    except OSError as error:
        raise EnvironmentUnfit(f"backup: {error}", "Fix it, or resume without a backup: --set backup=null") from error


def _fetch_newest(store: ObjectStore, folder: RunFolder) -> None:
    for key in reversed(folders_in(store, f"{CHECKPOINTS}/")):
        try:
            checkpoint = safe_join(folder.checkpoints, key.removeprefix(f"{CHECKPOINTS}/"))
        except UnsafeName as error:
            note(f"backup: skipping {error}")
            continue
        # The recipe marks the folder as a run's: fetch it first, in case the rest is interrupted.
        _fetch_file(store, f"{key}/{RUN_FILES}/{folder.recipe.name}", folder.recipe)
        note(f"backup: fetching {key} ...")
        problem = fetch_folder(store, key, checkpoint, keeps_manifest=True)
        if problem is not None:
            note(f"backup: skipping {key}: {problem}")
            continue
        restore_run_files(checkpoint, folder)
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        best = state["progress"]["best_step"]
        if best is not None and (
            problem := fetch_folder(store, best_key(best), folder.best_model, keeps_manifest=False)
        ):
            note(f"backup: the best model, of step {best}, is missing ({problem}); the next better one will be kept.")
        return


def _fetch_finished(store: ObjectStore, folder: RunFolder, status: Status) -> None:
    _fetch_file(store, f"{RUN}/{folder.recipe.name}", folder.recipe)
    wanted = {FINAL: folder.final_model}
    if (best := status.progress.best_step) is not None:
        wanted[best_key(best)] = folder.best_model
    for key, final in wanted.items():
        if problem := fetch_folder(store, key, final, keeps_manifest=False):
            raise OSError(f"{key} is incomplete: {problem}")
    for path in folder.small_files_in_order():  # status.json, which says that it is finished, last
        _fetch_file(store, f"{RUN}/{path.name}", path)


def _fetch_file(store: ObjectStore, key: str, path: Path) -> None:
    content = store.read(key)
    if content is not None:
        files.write_bytes(path, content)


class BackupThread:
    """Copies the newest item it was given, one at a time."""

    def __init__(self, store: ObjectStore, folder: RunFolder, keep_last: int) -> None:
        self._store = store
        self._folder = folder
        self._keep_last = keep_last
        self._wake = threading.Condition()
        self._job: Callable[[], None] | None = None
        self._busy = False
        self._closing_at: float | None = None
        self._problem = ""
        self._thread = threading.Thread(target=self._work, name="backup", daemon=True)
        self._thread.start()

    def checkpoint_is_there(self, folder: Path) -> None:
        self._take(lambda: self._copy_checkpoint(folder))

    def models_are_there(self, progress: Progress) -> None:
        self._take(lambda: self._copy_models(progress.best_step))

    def close(self, seconds: float) -> None:
        with self._wake:
            self._closing_at = time.monotonic() + seconds
            if self._job is not None or self._busy:
                note(f"backup: copying what is left (at most {seconds:.0f} s) ...")
            self._wake.notify_all()
        self._thread.join(seconds)
        if self._job is not None or self._busy:
            note(f"backup: NOT COMPLETE: {self._problem or 'there was not enough time'}")

    def _take(self, job: Callable[[], None]) -> None:
        """Queue a job in place of one still waiting: a newer checkpoint makes an older one needless."""
        with self._wake:
            self._job = job
            self._wake.notify_all()

    def _work(self) -> None:
        while True:
            with self._wake:
                while self._job is None:
                    if self._closing_at is not None:
                        return
                    self._wake.wait()
                job, self._job, self._busy = self._job, None, True
            done = self._try_until_done(job)
            with self._wake:
                self._busy = False
                if not done:
                    self._job = self._job or job
                    return

    def _try_until_done(self, job: Callable[[], None]) -> bool:
        """Retry a job until it works or a newer one arrives; False if time runs out first."""
        pause = FIRST_PAUSE
        while True:
            try:
                job()
            except Exception as error:  # from the store, the disk or a bug: none may prevent later copies
                self._problem = str(error) or repr(error)
            else:
                if self._problem:
                    note("backup: working again.")
                self._problem = ""
                return True
            with self._wake:
                if self._closing_at is not None and time.monotonic() + pause > self._closing_at:
                    return False
                note(f"backup: {self._problem}; next attempt in {pause:.0f} s.")
                self._wake.wait(pause)
                if self._job is not None:
                    return True
            pause = min(2 * pause, LONGEST_PAUSE)

    def _copy_checkpoint(self, checkpoint: Path) -> None:
        if not checkpoint.is_dir():
            return  # removed since: a newer one is on its way
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        best = state["progress"]["best_step"]
        if best is not None:
            self._copy_best(best)
        upload_folder(self._store, checkpoint, f"{CHECKPOINTS}/{checkpoint.name}")
        self._copy_run_files()
        kept = folders_in(self._store, f"{CHECKPOINTS}/")
        # Newer ones belong to lost progress: the run has resumed from an earlier checkpoint since.
        lost = [key for key in kept if key > f"{CHECKPOINTS}/{checkpoint.name}"]
        older = [key for key in kept if key not in lost]
        for key in [*lost, *older[: -self._keep_last]]:
            remove_folder(self._store, key)
        self._keep_one_best(best)

    def _copy_models(self, best_step: int | None) -> None:
        if best_step is not None:
            self._copy_best(best_step)
        if self._folder.final_model.is_dir():  # keep_models may leave it out
            upload_folder(self._store, self._folder.final_model, FINAL)
        self._copy_run_files()
        self._keep_one_best(best_step)

    def _copy_best(self, step: int) -> None:
        """Copy the best model unless a later step's has replaced it, which the next checkpoint will copy."""
        if not self._folder.best_model.is_dir():
            return
        with snapshot(self._folder.best_model) as model:
            origin = json.loads((model / MODEL_ORIGIN).read_text(encoding="utf-8"))
            if origin["step"] == step:
                upload_snapshot(self._store, model, best_key(step))

    def _keep_one_best(self, step: int | None) -> None:
        for key in folders_in(self._store, f"{MODELS}/best-"):
            if step is not None and key != best_key(step):
                remove_folder(self._store, key)

    def _copy_run_files(self) -> None:
        for path in self._folder.small_files():
            self._store.put(f"{RUN}/{path.name}", path)
