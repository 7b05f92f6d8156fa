"""Child processes: starting them, watching them and all that they start, ending them, and hearing why they ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from ragcun_cli.errors import RagcunError

ERROR_FILE = "RAGCUN_ERROR_FILE"  # environment variable: file in which a process writes why it ends
# Between two looks at a process: short beside the minutes that one trains, and too long to be seen in a profile.
POLL_SECONDS = 1.0
SECONDS_TO_DIE = 30.0


class Child:
    """A process in a session of its own, so that Ctrl-C reaches it only through us, and all that it starts.

    As a `with` block it is killed at the end, and its descendants with it.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        output: IO[bytes] | None = None,
        errors: IO[bytes] | None = None,
    ) -> None:
        """environment: added to this process's. output, errors: files in place of this process's own streams."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._descendants: list[psutil.Process] = []

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Wait for the end, at most `seconds`; return as `poll`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll()

    def descendants(self) -> list[psutil.Process]:
        """Return what it has started, at any depth; once it has ended, what it had started when last asked."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._descendants = psutil.Process(self._process.pid).children(recursive=True) or self._descendants
        return self._descendants

    def send(self, number: int) -> None:
        """Send a signal to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> int:
        """Send SIGKILL to the process and its descendants, even if it has ended before them; return the exit code.

        A process in D state, such as one whose GPU fell off the bus, does not even end then: it is left behind.
        """
        for each in self.descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.kill()
        code = self.wait(SECONDS_TO_DIE)
        return -signal.SIGKILL if code is None else code


def when_parent_ends(parent: int, action: Callable[[], None]) -> None:
    """Call `action` from a thread once `parent`, this process's, is gone, however it went: nothing runs unwatched."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        action()

    threading.Thread(target=watch, name="parent-watcher", daemon=True).start()


def write_error(error: RagcunError) -> None:
    """Tell the process that started this one why it ends; does nothing where nobody asked."""
    path = os.environ.get(ERROR_FILE)
    if path:
        with contextlib.suppress(OSError):
            Path(path).write_text(f"{error.message} {error.hint}".strip(), encoding="utf-8")


def read_error(path: Path) -> str:
    """Return what a process that has ended wrote there; empty for nothing."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return " ".join(path.read_text(encoding="utf-8").split())
    return ""


def threads_each(processes: int) -> str:
    """Return OMP_NUM_THREADS for each of several processes: an equal part of the cores, unless it is set already."""
    return os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
