"""Processes that preflight starts: what they say, how long they may take, and how they end with it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from ragcun_cli.errors import EnvironmentUnfit, RagcunError
from ragcun_cli.processes import kill_tree

LINES_SHOWN = 3
POLL_SECONDS = 0.02
SECONDS_BETWEEN_NOTES = 0.5  # of which processes there are


class OutOfTime(RagcunError):
    """What was begun is not done within preflight's time; it was ended."""


class Child:
    """A Python process with a log of its own; it ends with the `with` block, and its children with it."""

    def __init__(
        self, arguments: Sequence[str], log: Path, deadline: float, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = [sys.executable, *arguments]
        self._log = log
        self._deadline = deadline
        self._below: list[psutil.Process] = []
        self._next_note = 0.0
        self._environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "1000", **(environment or {})}

    def __enter__(self) -> Child:
        with self._log.open("wb") as errors, self._log.with_suffix(".out").open("wb") as results:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=results,
                stderr=errors,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is preflight's: it ends the child itself
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL to it and to all that it started, also where it has ended before them."""
        if self._process.poll() is None:
            self._note_children()
            kill_tree(self._process.pid)
            self._process.wait()
        for each in self._below:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self._below = []

    def _note_children(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._below = psutil.Process(self._process.pid).children(recursive=True)

    def failed(self) -> bool:
        """Whether it has ended, and not well."""
        return bool(self._process.poll())

    def is_alive(self) -> bool:
        """Whether it runs. Waits a moment, for those who ask again and again.

        Raises:
            OutOfTime: if its time is over.
        """
        if time.monotonic() > self._deadline:
            raise OutOfTime("it was not done within the time that preflight takes")
        if self._process.poll() is not None:
            return False
        if time.monotonic() > self._next_note:
            self._next_note = time.monotonic() + SECONDS_BETWEEN_NOTES
            self._note_children()
        time.sleep(POLL_SECONDS)
        return True

    def result(self) -> Any:
        """What it printed, as JSON, once it has ended.

        Raises:
            RagcunError: if it failed, with what it said.
            OutOfTime: if its time is over.
        """
        while self.is_alive():
            pass
        if self._process.returncode:
            raise self.error()
        return _json(self._log.with_suffix(".out"))

    def error(self) -> RagcunError:
        """What it died of: an error of ours as it was, anything else by its last lines."""
        said = _json(self._log.with_suffix(".out"))
        if isinstance(said, dict) and "error" in said:
            return EnvironmentUnfit(said["error"], said.get("hint", ""))
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = " / ".join(lines[-LINES_SHOWN:]) or "it said nothing"
        code = self._process.returncode
        killed = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        hint = "Memory may have run out." if code == -9 else ""
        return EnvironmentUnfit(f"{killed}: {last}", hint)


def _json(path: Path) -> Any:
    """The JSON that a file ends with, None where there is none; what stands before it is for people."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for start, sign in enumerate(text):
        if sign in "{[" and (start == 0 or text[start - 1] == "\n"):
            try:
                return json.loads(text[start:])
            except ValueError:
                continue
    return None


def ask(module: str, arguments: Sequence[str], log: Path, deadline: float) -> Any:
    """What `python -m module` prints as JSON.

    Raises:
        RagcunError: as `Child.result`.
    """
    with Child(["-m", module, *arguments], log, deadline) as child:
        return child.result()
