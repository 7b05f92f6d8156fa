"""Copy folders to and from a backup: files first, the manifest of their sizes and digests last.

A folder without a manifest counts as absent, so a copy that was killed wastes only its own time.

    <backup>/<run folder's name>/checkpoints/step-00000030/...   the newest `keep_last` checkpoints checkpoints
                                 models/best-00000025/...        the best model recorded in the newest checkpoint
                                 models/final/...                once the run is finished
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
from ragcun_cli.safe_paths import UNUSABLE_NAME, UnsafeName, safe_join
from ragcun_cli.storage.stores import ObjectStore

CHECKPOINTS, MODELS, RUN = "checkpoints", "models", "run"
STATUS = f"{RUN}/status.json"
FINAL = f"{MODELS}/final"


def best_key(step: int) -> str:
    """Return the key of the best model, which this step produced."""
    return f"{MODELS}/best-{step:08}"


def upload_folder(store: ObjectStore, folder: Path, key: str) -> None:
    """Copy a folder as it is now, unless the backup already has exactly the same files.

    Raises:
        OSError: if the copy fails.
    """
    with snapshot(folder) as links:
        upload_snapshot(store, links, key)


def upload_snapshot(store: ObjectStore, folder: Path, key: str) -> None:
    """Copy a folder that nothing changes during the copy."""
    manifest = _manifest_of(folder)
    there = store.read(f"{key}/{MANIFEST}")
    if there == manifest:
        return
    if there is not None:
        store.delete([f"{key}/{MANIFEST}"])  # first: it must never vouch for other files
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            store.put(f"{key}/{path.relative_to(folder).as_posix()}", path)
    store.put_new(f"{key}/{MANIFEST}", manifest)


@contextlib.contextmanager
def snapshot(folder: Path) -> Iterator[Path]:
    """Yield hard links to the folder's files, so that training may remove or replace it while it is copied.

    Raises:
        OSError: if the folder was replaced while it was being linked.
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
            raise OSError(f"{folder}: replaced while it was being copied")
        yield links


def fetch_folder(store: ObjectStore, key: str, final: Path, keeps_manifest: bool) -> str | None:
    """Copy a folder from the backup, giving it its final name only once it is complete.

    keeps_manifest: whether the manifest is part of the folder itself, as in checkpoints.

    Returns:
        Why the folder in the backup is incomplete, or None if it was copied.
    """
    manifest = store.read(f"{key}/{MANIFEST}")
    if manifest is None:
        return f"it has no {MANIFEST}"
    try:
        names = list(listed_files(manifest))
    except UnsafeName as error:
        return str(error)
    except ValueError:
        return f"its {MANIFEST} cannot be read"
    try:
        with files.new_folder(final) as temporary:
            (temporary / MANIFEST).write_bytes(manifest)
            for name in names:
                path = safe_join(temporary, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                store.fetch(f"{key}/{name}", path)
            if problem := problem_with(temporary):
                raise _NotWholeError(problem)
            if not keeps_manifest:
                (temporary / MANIFEST).unlink()
    except (_NotWholeError, FileNotFoundError, *UNUSABLE_NAME) as error:
        return str(error)
    return None


def folders_in(store: ObjectStore, below: str) -> list[str]:
    """Return the sorted keys of the complete folders whose keys begin with `below`."""
    return sorted(key.removesuffix(f"/{MANIFEST}") for key in store.keys(below) if key.endswith(f"/{MANIFEST}"))


def remove_folder(store: ObjectStore, key: str) -> None:
    """Remove a folder, its manifest first."""
    store.delete([f"{key}/{MANIFEST}"])
    store.delete(store.keys(f"{key}/"))


class _NotWholeError(Exception):
    pass


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:  # the file system does not support hard links
        shutil.copyfile(path, target)


def _manifest_of(folder: Path) -> bytes:
    """Return the folder's own manifest, or make one now."""
    own = folder / MANIFEST
    return own.read_bytes() if own.is_file() else manifest_bytes(folder)
