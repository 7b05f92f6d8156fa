"""The sha256 of a file, computed once for as long as the file is not written to.

As git's index does it: a file whose size, times of change and inode are what they were has the content it had. A
time so recent that another write could share it is not trusted.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.data.cache import key_of

TOO_RECENT = 2_000_000_000  # nanoseconds: the coarsest clock of a file system in use (FAT's)


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
