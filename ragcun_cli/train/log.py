"""metrics.jsonl: one object per logged step, and nothing that depends on the clock.

The same recipe gives the same file; how fast it went stands apart in speed.jsonl.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ragcun_cli import files


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one JSON object as a line."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def keep_lines_until(path: Path, step: int) -> None:
    """Drop what an interrupted run logged after the checkpoint it resumes from."""
    if not path.is_file():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    files.write_text(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the half line of a killed process
