"""Processes that others started."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from ragcun_cli.errors import RagcunError

ERROR_FILE = "RAGCUN_ERROR_FILE"  # in a process's environment: where it says why it ends


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all below it: workers have sessions of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in [*top.children(recursive=True), top]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def write_error(error: RagcunError) -> None:
    """Tell the process that started this one why it ends; nothing where nobody asked."""
    path = os.environ.get(ERROR_FILE)
    if path:
        with contextlib.suppress(OSError):
            Path(path).write_text(f"{error.message} {error.hint}".strip(), encoding="utf-8")


def read_error(path: Path) -> str:
    """What a process that has ended wrote there; empty for nothing."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return " ".join(path.read_text(encoding="utf-8").split())
    return ""
