"""What is free of the machine's memory."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

CONTROL_GROUP = Path("/sys/fs/cgroup")  # Linux's limits of a container, version 2


def free_memory_of_machine() -> int:
    """Bytes that this process may still take of the machine's memory, or of a container's share of it."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):
        limit = int((CONTROL_GROUP / "memory.max").read_text())  # "max" where there is none
        used = int((CONTROL_GROUP / "memory.current").read_text())
        free = min(free, max(limit - used, 0))
    return int(free)
