"""Folders in a backup: files first, the manifest of their sizes and digests last.

A folder whose manifest is not there does not exist, so a copy that was killed costs nothing but its own time.

    <backup>/<run folder's name>/checkpoints/step-00000030/...   the newest `keep_last`
                                 models/best-00000025/...        the best model that the newest checkpoint knows of
                                 models/final/...                when the run is finished
                                 run/status.json ...             the run's small files, after each checkpoint
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.manifest import MANIFEST, listed_files, manifest_bytes, problem_with
from ragcun_cli.storage.stores import ObjectStore

CHECKPOINTS, MODELS, RUN = "checkpoints", "models", "run"
STATUS = f"{RUN}/status.json"
FINAL = f"{MODELS}/final"


def best_key(step: int) -> str:
    """Of the best model, which was that of this step."""
    return f"{MODELS}/best-{step:08}"


def copy_folder(place: ObjectStore, folder: Path, key: str) -> None:
    """Copy a folder as it is now; one that the backup has already, file for file, is not copied again.

    Raises:
        OSError: if it did not work.
    """
    with held(folder) as links:
        copy_held(place, links, key)


def copy_held(place: ObjectStore, folder: Path, key: str) -> None:
    """Copy a folder that nobody changes meanwhile."""
    manifest = _manifest_of(folder)
    there = place.read(f"{key}/{MANIFEST}")
    if there == manifest:
        return
    if there is not None:
        place.delete([f"{key}/{MANIFEST}"])  # first: it must never vouch for other files
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            place.put(f"{key}/{path.relative_to(folder).as_posix()}", path)
    place.put_new(f"{key}/{MANIFEST}", manifest)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Path]:
    """The folder under another name, as hard links: while it is copied, training may remove or replace it.

    Raises:
        OSError: if it was replaced just now.
    """
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent) as name:
        links, before = Path(name), folder.stat().st_ino
        for path in sorted(folder.rglob("*")):
            target = links / path.relative_to(folder)
            if path.is_dir():
                target.mkdir()
            else:
                _link_or_copy(path, target)
        if folder.stat().st_ino != before:
            raise OSError(f"{folder}: was replaced while it was copied")
        yield links


def fetch_folder(place: ObjectStore, key: str, final: Path, keeps_manifest: bool) -> str | None:
    """Copy a folder from the backup; it gets its name only when it is whole.

    keeps_manifest: whether the folder has a manifest of its own, as checkpoints do.

    Returns:
        Why it is not whole, or None.
    """
    manifest = place.read(f"{key}/{MANIFEST}")
    if manifest is None:
        return f"it has no {MANIFEST}"
    try:
        names = list(listed_files(manifest))
    except ValueError:
        return f"its {MANIFEST} is not readable"
    try:
        with files.new_folder(final) as temporary:
            (temporary / MANIFEST).write_bytes(manifest)
            for name in names:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                place.fetch(f"{key}/{name}", temporary / name)
            if problem := problem_with(temporary):
                raise _NotWholeError(problem)
            if not keeps_manifest:
                (temporary / MANIFEST).unlink()
    except (_NotWholeError, FileNotFoundError) as error:
        return str(error)
    return None


def folders_in(place: ObjectStore, below: str) -> list[str]:
    """Keys of the whole folders, in order."""
    return sorted(key.removesuffix(f"/{MANIFEST}") for key in place.keys(below) if key.endswith(f"/{MANIFEST}"))


def remove_folder(place: ObjectStore, key: str) -> None:
    """Remove a folder, its manifest first."""
    place.delete([f"{key}/{MANIFEST}"])
    place.delete(place.keys(f"{key}/"))


class _NotWholeError(Exception):
    pass


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        shutil.copyfile(path, target)


def _manifest_of(folder: Path) -> bytes:
    """The folder's own, or one made now."""
    own = folder / MANIFEST
    return own.read_bytes() if own.is_file() else manifest_bytes(folder)
