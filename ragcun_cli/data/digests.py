"""Content hashes: of texts, and of a file, which is hashed once for as long as it is not written to.

As in git's index, a file with the same size, modification times and inode is assumed to have the same content. A
time so recent that a later write could have the same one is not trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ragcun_cli import files
from ragcun_cli.data.cache import key_of

TOO_RECENT = 2_000_000_000  # nanoseconds; the resolution of the coarsest file-system clock (FAT's)
KEY_BYTES = 16
Keys = npt.NDArray[np.void]  # (n,) of KEY_BYTES each


def sha256_of(path: Path, cache: Path) -> str:
    """Return the hex sha256 of the file's content."""
    record = cache / "digests" / f"{key_of(path=str(path.resolve()))}.json"
    state = _state(path)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["state"] == state:
            return str(known["sha256"])
    sha256 = files.sha256_of_file(path)
    if _state(path) == state and time.time_ns() - path.stat().st_mtime_ns > TOO_RECENT:
        files.write_json(record, {"state": state, "sha256": sha256})
    return sha256


def _state(path: Path) -> list[int]:
    found = path.stat()
    # Include the inode's change time, because the modification time can be set back, as rsync and cp do.
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def keys_of(texts: Sequence[str]) -> Keys:
    """Return the blake2b hash of each text, (n,)."""
    joined = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest() for text in texts
    )
    return np.frombuffer(joined, dtype=f"V{KEY_BYTES}")


def as_keys(values: npt.NDArray[np.uint8]) -> Keys:
    """Convert keys from their form in a file, (n, KEY_BYTES) uint8."""
    return values.view(f"V{KEY_BYTES}").reshape(-1)


def as_bytes(keys: Keys) -> npt.NDArray[np.uint8]:
    """Convert keys to their form in a file."""
    return keys.view(np.uint8).reshape(-1, KEY_BYTES)
