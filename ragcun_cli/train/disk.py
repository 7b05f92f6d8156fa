"""Disk space for what a run will write, checked before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.data.cache import cache_folder
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.quantities import shown_bytes

SHOWN_PLACES = 4


def free_bytes(folder: Path) -> int:
    """Return the bytes free on the disk of `folder`, which need not exist yet."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(nearest).free


def folder_bytes(folder: Path) -> int:
    """Return the bytes that the files below a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def require_room(run: Path, checkpoint_bytes: int, checkpoints: int, present_bytes: int, model_bytes: int = 0) -> None:
    """Refuse to continue if `checkpoints` checkpoints do not fit; some may exist, and at least one is still to come.

    checkpoint_bytes: of one. present_bytes: of those that exist. model_bytes: of models that are still to come.

    Raises:
        EnvironmentUnfit: saying how much is missing and what could be removed.
    """
    # At least half of a checkpoint is one file: the weights, or the optimiser's moments.
    if checkpoint_bytes // 2 > files.largest_file():
        raise EnvironmentUnfit(
            f"{run}: a checkpoint takes {shown_bytes(checkpoint_bytes)}, which exceeds the file-size limit here",
            "See: ulimit -f",
        )
    free = free_bytes(run)
    if free >= checkpoint_bytes and free + present_bytes >= checkpoints * checkpoint_bytes + model_bytes:
        return
    of_models = f" and models of {shown_bytes(model_bytes)}" if model_bytes else ""
    raise disk_is_full(
        run,
        f"{checkpoints} checkpoints of {shown_bytes(checkpoint_bytes)}{of_models} do not fit, "
        f"{shown_bytes(free)} are free",
    )


def disk_is_full(run: Path, what: str) -> EnvironmentUnfit:
    """Return the error that names what could be removed."""
    places = [*run.glob("checkpoint_epoch_*"), *run.parent.glob("*/checkpoints"), cache_folder()]
    sizes = sorted(((folder_bytes(place), place) for place in set(places)), reverse=True)
    listed = ", ".join(f"{place} ({shown_bytes(size)})" for size, place in sizes[:SHOWN_PLACES] if size)
    return EnvironmentUnfit(
        f"{run}: the disk is full: {what}",
        "Free some space and continue with --resume."
        + (f" What ragcun keeps here: {listed}. Finished runs no longer need checkpoints/." if listed else ""),
    )
