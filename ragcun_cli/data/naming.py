"""Name collections as the user named them, because rules and results depend on the name."""

from __future__ import annotations

from pathlib import Path

from ragcun_cli.files import given_name


def is_zip(path: Path) -> bool:
    """Return whether the name ends in .zip, in any case; a link also counts by its target's name."""
    return path.suffix.lower() == ".zip" or (path.is_symlink() and path.resolve().suffix.lower() == ".zip")


def name_of(path: Path) -> str:
    """Return the name of a folder or zip; for a link, its own: `data/arguana -> /disk/beir-7` is ArguAna."""
    name = given_name(path)
    return Path(name).stem if name.lower().endswith(".zip") else name
