"""Content hashes: of texts, and of a file, which is hashed once for as long as it is not written to.

As git's index does it: a file whose size, times of change and inode are what they were has the content it had. A
time so recent that another write could share it is not trusted.
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

TOO_RECENT = 2_000_000_000  # nanoseconds: the coarsest clock of a file system in use (FAT's)
KEY_BYTES = 16
Keys = npt.NDArray[np.void]  # (n,) of KEY_BYTES each


def sha256_of(path: Path, cache: Path) -> str:
    """Hex sha256 of the file's content."""
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
    # The time of the inode too: the time of the content can be set back, as rsync and cp do.
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def keys_of(texts: Sequence[str]) -> Keys:
    """blake2b of each text, (n,)."""
    joined = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest() for text in texts
    )
    return np.frombuffer(joined, dtype=f"V{KEY_BYTES}")


def as_keys(values: npt.NDArray[np.uint8]) -> Keys:
    """Keys from how they are kept in a file, (n, KEY_BYTES) uint8."""
    return values.view(f"V{KEY_BYTES}").reshape(-1)


def as_bytes(keys: Keys) -> npt.NDArray[np.uint8]:
    """Keys as they are kept in a file."""
    return keys.view(np.uint8).reshape(-1, KEY_BYTES)
