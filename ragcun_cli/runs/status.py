"""status.json: how far a run is and how it ended, replaced as a whole whenever that changes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli import files

RUNNING, INTERRUPTED, FAILED, FINISHED = "running", "interrupted", "failed", "finished"


@dataclass
class Progress:
    """What a resumed run must restore, besides the tensors.

    step: optimiser steps done. best_score, best_step: of the dev scores so far. scores_without_gain: dev scores since
    the best. chunk_tokens: tokens encoded at a time, None for a whole batch; with another number the
    last digits would differ. overflows: steps in a row that fp16's loss scaling skipped. tokens: how many were encoded
    so far. behind: the dev score and the epoch's model that are due at this step are still to be made.
    """

    step: int = 0
    best_score: float | None = None
    best_step: int | None = None
    scores_without_gain: int = 0
    chunk_tokens: int | None = None
    overflows: int = 0
    tokens: int = 0
    behind: bool = False


@dataclass(frozen=True)
class Status:
    """A run's state: RUNNING, INTERRUPTED, FAILED or FINISHED. exit_reason: why it stopped; exit_code: how its command
    ended, None while it runs. log_lost: which of its output streams were lost, and why; empty if none.
    """

    state: str
    progress: Progress
    total_steps: int
    exit_reason: str = ""
    exit_code: int | None = None
    log_lost: str = ""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Status:
        """Make a status from JSON, including that of earlier versions, which had fewer keys.

        Raises:
            KeyError, TypeError: if it is not a status.
        """
        state = str(content["state"])
        known = {field.name for field in dataclasses.fields(Progress)}
        if not all(isinstance(content.get(name), int | None) for name in ("step", "best_step", "total_steps")):
            raise TypeError("steps must be whole numbers")
        return cls(
            state,
            Progress(**{name: value for name, value in content.items() if name in known}),
            content.get("total_steps", 0),
            str(content.get("exit_reason") or ""),
            content.get("exit_code"),
            str(content.get("log_lost") or ""),
        )

    @classmethod
    def find(cls, path: Path) -> Status | None:
        """Read a status; None if there is none or it cannot be read."""
        try:
            return cls.parse(path.read_bytes())
        except OSError:
            return None

    @classmethod
    def parse(cls, content: bytes | None) -> Status | None:
        """Make a status from a file's bytes, such as a backup's; None if they are not one."""
        try:
            return cls.of(json.loads(content or b""))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """Replace the file."""
        files.write_json(path, self.content())

    def content(self) -> dict[str, Any]:
        """Return the content of the JSON file, with the progress among the other keys."""
        ended: dict[str, Any] = {"exit_reason": self.exit_reason, "exit_code": self.exit_code}
        if self.log_lost:
            ended["log_lost"] = self.log_lost
        return {"state": self.state, **dataclasses.asdict(self.progress), "total_steps": self.total_steps, **ended}

    @property
    def shown(self) -> str:
        """The state for display, such as `interrupted at step 120 of 300`."""
        at = f"{self.state} at step {self.progress.step} of {self.total_steps}"
        return FINISHED if self.state == FINISHED else at


@dataclass(frozen=True)
class ArmSummary:
    """How an arm ended. `model` is the folder to evaluate: the best on dev, or the final one without dev."""

    name: str
    folder: str
    model: str
    steps: int
    best_step: int | None
    best_dev_ndcg: float | None
