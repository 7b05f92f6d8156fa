"""Folders that can be checked for completeness: a manifest of sizes and digests is written last.

safetensors and raw arrays load corrupted bytes without an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ragcun_cli import files
from ragcun_cli.safe_paths import UnsafeName, require_safe_name

MANIFEST = "manifest.json"


def seal(folder: Path, **content: Any) -> None:
    """Write the manifest: `content`, and the size and sha256 of every file in the folder."""
    files.write_bytes(folder / MANIFEST, manifest_bytes(folder, **content))


def manifest_bytes(folder: Path, **content: Any) -> bytes:
    """Return what `seal` would write."""
    listed = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": files.sha256_of_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return (json.dumps({**content, "files": listed}, indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what `seal` wrote. Call only after `problem_with` returned None."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def listed_files(manifest: bytes) -> dict[str, tuple[int, str]]:
    """Map each file name in a manifest to its size and sha256.

    Raises:
        ValueError: if it is not a manifest.
        UnsafeName: if it names anything other than files inside its folder.
    """
    try:
        listed = {name: (each["bytes"], each["sha256"]) for name, each in json.loads(manifest)["files"].items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a manifest: {error}") from None
    for name in listed:
        require_safe_name(name)
    return listed


def problem_with(folder: Path) -> str | None:
    """Return how a sealed folder differs from what was written, or None."""
    try:
        expected = listed_files((folder / MANIFEST).read_bytes())
    except UnsafeName as error:
        return str(error)
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
