"""The cache, which keeps computed data between runs, arms and evaluations."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from ragcun_cli.console import note
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.files import expanded

SECONDS_BEFORE_A_WORD = 2


def cache_folder() -> Path:
    """Return `$RAGCUN_CACHE`, `$XDG_CACHE_HOME/ragcun` or `~/.cache/ragcun`. Its contents may be deleted at any time.

    Raises:
        EnvironmentUnfit: if it cannot be written.
    """
    chosen, base = os.environ.get("RAGCUN_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        folder = expanded(chosen) if chosen else expanded(base or "~/.cache") / "ragcun"
    except UsageError:
        raise EnvironmentUnfit("cannot find a home folder for the cache", "Set RAGCUN_CACHE to a folder.") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise EnvironmentUnfit(f"{folder}: cannot write the cache there", "Set RAGCUN_CACHE to another folder.")
    return folder


def key_of(**parts: Any) -> str:
    """Return a folder name that differs whenever a part differs."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def digest_of_texts(texts: Sequence[str]) -> str:
    """Return the hex sha256 of the texts and their boundaries."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Let one process at a time fill a cache folder; the others wait and then find it filled."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f"{folder.name}.lock")
    try:
        lock.acquire(timeout=SECONDS_BEFORE_A_WORD)
    except Timeout:
        note(f"{folder}: another ragcun process is filling it; waiting for it to finish.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def scratch_folder(cache: Path) -> Iterator[Path]:
    """Yield a temporary folder for a `with` block, after removing those left by killed processes."""
    root = cache / "scratch"
    for left in root.glob("*-*"):
        if not psutil.pid_exists(int(left.name.split("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=root) as folder:
        yield Path(folder)
