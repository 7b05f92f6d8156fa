"""Read the JSON of results: strictly for a report, leniently for code that looks at any folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ragcun_cli.errors import DataError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, strictly.

    Raises:
        DataError: if it is not a JSON object, or has a number that is not finite.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not valid JSON ({error})", "Evaluate again.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a ragcun results file", "Remove it, or evaluate again.")
    broken = _not_finite(content)
    if broken:
        raise DataError(f"{path}: {broken}, which is not a valid figure", "Evaluate again.")
    return content


def find_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def try_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if there is none."""
    return find_json(path) or {}


def _not_finite(content: Any, place: str = "") -> str:
    """Say where a number is NaN or infinite; empty if none is."""
    if isinstance(content, dict):
        return next((found for key, each in content.items() if (found := _not_finite(each, f"{place}.{key}"))), "")
    if isinstance(content, list):
        return next((found for each in content if (found := _not_finite(each, place))), "")
    if isinstance(content, float) and not math.isfinite(content):
        return f"{place.lstrip('.')} is {content}"
    return ""
