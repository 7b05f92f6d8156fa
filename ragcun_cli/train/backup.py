"""A run's backup: checkpoints and final models are copied in a thread, and fetched where the disk has lost them.

Where its parts lie says `storage/sealed.py`. What goes wrong is said and tried again; it never stops training.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ragcun_cli import files
from ragcun_cli.console import note
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import RunFolder
from ragcun_cli.runs.status import Progress
from ragcun_cli.storage.sealed import (
    CHECKPOINTS,
    FINAL,
    MODELS,
    RUN,
    STATUS,
    best_key,
    copy_folder,
    copy_held,
    fetch_folder,
    folders_in,
    held,
    remove_folder,
)
from ragcun_cli.storage.stores import FolderStore, ObjectStore, open_store
from ragcun_cli.train.checkpoint import RUN_FILES, newest_valid, restore_run_files
from ragcun_cli.train.run_folder import MODEL_ORIGIN

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between attempts; doubled each time


class Backup(Protocol):
    """What training tells its backup."""

    def checkpoint_is_there(self, folder: Path) -> None:
        """A checkpoint is whole; copy it when there is time."""

    def models_are_there(self, progress: Progress) -> None:
        """The run is finished; copy its models."""

    def close(self, seconds: float) -> None:
        """Wait at most so long for what is still to be copied, and say what was not."""


class NoBackup:
    """For recipes without one."""

    def checkpoint_is_there(self, folder: Path) -> None:
        pass

    def models_are_there(self, progress: Progress) -> None:
        pass

    def close(self, seconds: float) -> None:
        pass


def place_of(recipe: Recipe, folder: RunFolder) -> ObjectStore | None:
    """Where the recipe's run is backed up, None where it is not."""
    return None if recipe.backup is None else open_store(recipe.backup, files.given_name(folder.root))


def open_backup(recipe: Recipe, folder: RunFolder) -> Backup:
    """The backup of a run that begins or goes on."""
    place = place_of(recipe, folder)
    return NoBackup() if place is None else BackupThread(place, folder, recipe.keep_last)


def look_at_backup(recipe: Recipe, folder: RunFolder, resume: bool, overwrite: bool) -> None:
    """Before a run begins: fetch what `--resume` needs if it is not on disk; see that no other run is there.

    Raises:
        EnvironmentUnfit: if the backup cannot be used.
        UsageError: if it holds a run that would be mixed with this one.
    """
    place = place_of(recipe, folder)
    if place is None:
        return
    if isinstance(place, FolderStore) and _nested(place.root, folder.root):
        raise UsageError(
            f"backup: {place.root} and the run's folder {folder.root} lie in each other",
            "Name a folder on another disk, or an S3 address.",
        )
    place.check()
    if resume:
        if folder.state() != "finished" and newest_valid(folder.checkpoints)[0] is None:
            _fetch(place, folder)
    elif not overwrite and folders_in(place, ""):
        raise UsageError(
            f"backup: {recipe.backup} already holds a run of the name {files.given_name(folder.root)}",
            "--resume continues it, --overwrite drops it, --set output_dir=FOLDER takes another name.",
        )


def _nested(one: Path, other: Path) -> bool:
    one, other = one.resolve(), other.resolve()
    return one == other or one in other.parents or other in one.parents


def drop_backup(recipe: Recipe, folder: RunFolder) -> None:
    """Remove what an earlier run of this name left, before a new one begins."""
    place = place_of(recipe, folder)
    if place is None:
        return
    # First what says that there is something: cut off here, the rest means nothing.
    place.delete([STATUS])
    for key in folders_in(place, ""):
        remove_folder(place, key)
    place.delete(place.keys(""))


def _fetch(place: ObjectStore, folder: RunFolder) -> None:
    try:
        status = _remote_status(place)
        if status.get("state") == "finished" and FINAL in folders_in(place, MODELS):
            return _fetch_finished(place, folder, status)
        _fetch_newest(place, folder)
    except OSError as error:
        raise EnvironmentUnfit(f"backup: {error}", "Fix it, or resume without: --set backup=null") from error


def _fetch_newest(place: ObjectStore, folder: RunFolder) -> None:
    for key in reversed(folders_in(place, f"{CHECKPOINTS}/")):
        # The recipe makes the folder a run's: it comes first, should what follows be cut off.
        _fetch_file(place, f"{key}/{RUN_FILES}/{folder.recipe.name}", folder.recipe)
        checkpoint = folder.checkpoints / key.rsplit("/", 1)[1]
        note(f"backup: fetching {key} ...")
        problem = fetch_folder(place, key, checkpoint, keeps_manifest=True)
        if problem is not None:
            note(f"backup: {key} is skipped: {problem}")
            continue
        restore_run_files(checkpoint, folder)
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        best = state["progress"]["best_step"]
        if best is not None and (
            problem := fetch_folder(place, best_key(best), folder.best_model, keeps_manifest=False)
        ):
            note(f"backup: the best model of step {best} is not there ({problem}); a better one will be kept.")
        return


def _fetch_finished(place: ObjectStore, folder: RunFolder, status: dict[str, Any]) -> None:
    _fetch_file(place, f"{RUN}/{folder.recipe.name}", folder.recipe)
    wanted = {FINAL: folder.final_model}
    if status.get("best_step") is not None:
        wanted[best_key(status["best_step"])] = folder.best_model
    for key, final in wanted.items():
        if problem := fetch_folder(place, key, final, keeps_manifest=False):
            raise OSError(f"{key} is not whole: {problem}")
    for path in folder.small_files_in_order():  # status.json, which says that it is finished, last
        _fetch_file(place, f"{RUN}/{path.name}", path)


def _fetch_file(place: ObjectStore, key: str, path: Path) -> None:
    content = place.read(key)
    if content is not None:
        files.write_bytes(path, content)


def _remote_status(place: ObjectStore) -> dict[str, Any]:
    try:
        status: dict[str, Any] = json.loads(place.read(STATUS) or b"{}")
    except ValueError:
        return {}
    return status


class BackupThread:
    """Copies the newest of what it was told, one thing at a time."""

    def __init__(self, place: ObjectStore, folder: RunFolder, keep_last: int) -> None:
        self._place = place
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
                note(f"backup: copying what is left, {seconds:.0f} s at most ...")
            self._wake.notify_all()
        self._thread.join(seconds)
        if self._job is not None or self._busy:
            note(f"backup: NOT COMPLETE: {self._problem or 'there was not enough time'}")

    def _take(self, job: Callable[[], None]) -> None:
        """A newer checkpoint makes the one that waits for its turn needless."""
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
        """Whether it worked, or a newer job has come; False when there is no more time."""
        pause = FIRST_PAUSE
        while True:
            try:
                job()
            except (
                Exception
            ) as error:  # of the store, of the disk, or a defect: none may end the copying of what follows
                self._problem = str(error) or repr(error)
            else:
                if self._problem:
                    note("backup: works again.")
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
        copy_folder(self._place, checkpoint, f"{CHECKPOINTS}/{checkpoint.name}")
        self._copy_run_files()
        kept = folders_in(self._place, f"{CHECKPOINTS}/")
        # Newer ones are of a time that was lost with the checkpoint they were resumed from.
        lost = [key for key in kept if key > f"{CHECKPOINTS}/{checkpoint.name}"]
        older = [key for key in kept if key not in lost]
        for key in [*lost, *older[: -self._keep_last]]:
            remove_folder(self._place, key)
        self._keep_one_best(best)

    def _copy_models(self, best_step: int | None) -> None:
        if best_step is not None:
            self._copy_best(best_step)
        if self._folder.final_model.is_dir():  # keep_models may leave it out
            copy_folder(self._place, self._folder.final_model, FINAL)
        self._copy_run_files()
        self._keep_one_best(best_step)

    def _copy_best(self, step: int) -> None:
        """Unless it has been replaced by that of a later step, which the next checkpoint will know of."""
        if not self._folder.best_model.is_dir():
            return
        with held(self._folder.best_model) as model:
            origin = json.loads((model / MODEL_ORIGIN).read_text(encoding="utf-8"))
            if origin["step"] == step:
                copy_held(self._place, model, best_key(step))

    def _keep_one_best(self, step: int | None) -> None:
        for key in folders_in(self._place, f"{MODELS}/best-"):
            if step is not None and key != best_key(step):
                remove_folder(self._place, key)

    def _copy_run_files(self) -> None:
        for path in self._folder.small_files():
            self._place.put(f"{RUN}/{path.name}", path)
