"""Ways in which a sealed folder stops being whole."""

from __future__ import annotations

from pathlib import Path

from ragcun_cli.manifest import MANIFEST

KINDS = ("flip", "truncate", "remove", "not a manifest")


def damage(folder: Path, name: str, kind: str) -> None:
    """Flip a bit of the folder's file, cut its last byte off, empty it, or remove it or the manifest."""
    path = folder / (MANIFEST if kind == "not a manifest" else name)
    content = bytearray(path.read_bytes())
    if kind in ("remove", "not a manifest"):
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncate":
        path.write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
