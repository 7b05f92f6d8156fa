"""metrics.jsonl, speed.jsonl and environment.json, also while a run is writing them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """All lines; empty where there is no file.

    Raises:
        ValueError: if one is no JSON.
    """
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def whole_records(path: Path) -> list[Record]:
    """Those whose lines are whole: the last one may be half written. Empty where nothing can be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]
    except (OSError, ValueError):
        return []


def read_environment(path: Path) -> Record:
    """
    Raises:
        OSError, ValueError: if it cannot be read.
    """
    content: Record = json.loads(path.read_text(encoding="utf-8"))
    return content


def find_environment(path: Path) -> Record:
    """Empty where it cannot be read."""
    try:
        return read_environment(path)
    except (OSError, ValueError):
        return {}
