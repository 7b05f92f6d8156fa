"""Processes that preflight starts: what they answer, how long they may take, and how they end with it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragcun_cli.errors import EnvironmentUnfit, RagcunError
from ragcun_cli.processes import Child

LINES_SHOWN = 3
SECONDS_TO_SLEEP = 0.02  # a tiny training is over in a second, and is to be killed in its middle
SECONDS_BETWEEN_LOOKS = 0.5  # at which processes it has started


class OutOfTime(RagcunError):
    """A process did not finish within preflight's time limit and was ended."""


class Answerer:
    """A Python process that prints JSON, with a log of its own and a deadline; it ends with the `with` block."""

    def __init__(
        self, arguments: Sequence[str], log: Path, deadline: float, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = [sys.executable, *arguments]
        self._log = log
        self._deadline = deadline
        self._next_look = 0.0
        self._environment = {"NO_COLOR": "1", "COLUMNS": "1000", **(environment or {})}

    def __enter__(self) -> Answerer:
        with self._log.open("wb") as errors, self._log.with_suffix(".out").open("wb") as output:
            self._child = Child(self._command, self._environment, output, errors)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill it and all that it started."""
        self._child.kill()

    def failed(self) -> bool:
        """Return whether it has ended with an error."""
        return bool(self._child.poll())

    def is_alive(self) -> bool:
        """Whether it runs. Waits a moment, for callers that ask in a loop.

        Raises:
            OutOfTime: if its time is over.
        """
        if time.monotonic() > self._deadline:
            raise OutOfTime("it did not finish within preflight's time limit")
        if self._child.poll() is not None:
            return False
        if time.monotonic() > self._next_look:
            self._next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
            self._child.descendants()
        time.sleep(SECONDS_TO_SLEEP)
        return True

    def result(self) -> Any:
        """Wait until it has ended and return the JSON that it printed.

        Raises:
            RagcunError: if it failed, with the error that it printed.
            OutOfTime: if its time is over.
        """
        while self.is_alive():
            pass
        if self.failed():
            raise self.error()
        return _json(self._log.with_suffix(".out"))

    def error(self) -> RagcunError:
        """Return why it failed: ragcun's own error as it was, anything else as its last lines."""
        said = _json(self._log.with_suffix(".out"))
        if isinstance(said, dict) and "error" in said:
            return EnvironmentUnfit(said["error"], said.get("hint", ""))
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = " / ".join(lines[-LINES_SHOWN:]) or "it printed nothing"
        code = self._child.poll() or 0
        killed = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        hint = "Memory may have run out." if code == -9 else ""
        return EnvironmentUnfit(f"{killed}: {last}", hint)


def _json(path: Path) -> Any:
    """Return the JSON at the end of a file, or None if there is none; any text before it is for people."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for start, sign in enumerate(text):
        if sign in "{[" and (start == 0 or text[start - 1] == "\n"):
            try:
                return json.loads(text[start:])
            except ValueError:
                continue
    return None


def ask(module: str, arguments: Sequence[str], log: Path, deadline: float) -> Any:
    """Run `python -m module` and return the JSON that it prints.

    Raises:
        RagcunError: as `Answerer.result`.
    """
    with Answerer(["-m", module, *arguments], log, deadline) as child:
        return child.result()
