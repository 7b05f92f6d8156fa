"""What a collection is called: by the name the user gave it, since rules and results go by it."""

from __future__ import annotations

from pathlib import Path

from ragcun_cli.files import given_name


def is_zip(path: Path) -> bool:
    """By its ending, in any case; a link of another name by what it leads to."""
    return path.suffix.lower() == ".zip" or (path.is_symlink() and path.resolve().suffix.lower() == ".zip")


def name_of(path: Path) -> str:
    """Of a folder or zip. A link's own name and not its target's: `data/arguana -> /disk/beir-7` is ArguAna."""
    name = given_name(path)
    return Path(name).stem if name.lower().endswith(".zip") else name
