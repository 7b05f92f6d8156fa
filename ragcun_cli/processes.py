"""Processes that others started."""

from __future__ import annotations

import contextlib

import psutil


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all below it: workers have sessions of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in [*top.children(recursive=True), top]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
