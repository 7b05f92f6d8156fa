"""Folders that say themselves whether they are whole: a manifest of sizes and digests, written last.

safetensors and raw arrays load a flipped byte without a word.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from ragcun_cli import files

MANIFEST = "manifest.json"


def seal(folder: Path, **content: Any) -> None:
    """Write the manifest: `content`, and size and sha256 of every file in the folder."""
    files.write_bytes(folder / MANIFEST, manifest_bytes(folder, **content))


def manifest_bytes(folder: Path, **content: Any) -> bytes:
    """What `seal` would write."""
    listed = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": files.sha256_of_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return (json.dumps({**content, "files": listed}, indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `seal` wrote. Call after `problem_with` found none."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def listed_files(manifest: bytes) -> dict[str, tuple[int, str]]:
    """Name -> size and sha256 of what a manifest lists.

    Raises:
        ValueError: if it is no manifest, or names anything but files inside of its folder.
    """
    try:
        listed = {name: (each["bytes"], each["sha256"]) for name, each in json.loads(manifest)["files"].items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no manifest: {error}") from None
    for name in listed:
        path = PurePosixPath(name)
        # A manifest may come from a bucket that others write to.
        if path.is_absolute() or ".." in path.parts or path == PurePosixPath(".") or "\0" in name:
            raise ValueError(f"no name of a file in its folder: {name!r}")
    return listed


def problem_with(folder: Path) -> str | None:
    """Why a sealed folder is not as it was written, or None."""
    try:
        expected = listed_files((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return f"it has no readable {MANIFEST}"
    for name, (size, digest) in expected.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, not {size}"
        if files.sha256_of_file(path) != digest:
            return f"{name} does not have the sha256 it was written with"
    return None
