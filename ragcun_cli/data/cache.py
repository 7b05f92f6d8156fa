"""Where computed things are kept between runs, arms and evaluations."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from ragcun_cli.errors import EnvironmentUnfit


def cache_folder() -> Path:
    """`$RAGCUN_CACHE`, else `$XDG_CACHE_HOME/ragcun`, else `~/.cache/ragcun`. All in it may be deleted at any time.

    Raises:
        EnvironmentUnfit: if it cannot be written.
    """
    chosen, base = os.environ.get("RAGCUN_CACHE"), os.environ.get("XDG_CACHE_HOME")
    folder = Path(chosen).expanduser() if chosen else (Path(base) if base else Path.home() / ".cache") / "ragcun"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise EnvironmentUnfit(f"{folder}: the cache cannot be written there", "Set RAGCUN_CACHE to another folder.")
    return folder


def key_of(**parts: Any) -> str:
    """A folder name that differs whenever a part does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def digest_of_texts(texts: Sequence[str]) -> str:
    """Hex sha256 of the texts and where each ends."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Let one process at a time fill a cache folder; the others wait and then find it full."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        yield
