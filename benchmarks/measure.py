"""Runs of two programs in turn, each in a process of its own, and the ratio of what they report."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

# Both sides get what ragcun sets for itself: else their threads spin while they wait for each other.
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000")}


def report(**figures: Any) -> None:
    """A worker's result: the last line it prints."""
    print(json.dumps(figures))


def run(program: str, arguments: Sequence[str]) -> dict[str, Any]:
    """One worker in a fresh process; what it reported."""
    finished = subprocess.run(
        [sys.executable, program, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    if finished.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{finished.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    return result


def alternate(program: str, sides: dict[str, Sequence[str]], runs: int) -> dict[str, list[dict[str, Any]]]:
    """Each side `runs` times, in turn, so that a drift of the machine meets both; the order changes with each round."""
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(runs):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for side in order:
            results[side].append(run(program, sides[side]))
            print(f"  run {number + 1}: {side}: {_shown(results[side][-1])}", file=sys.stderr)
    return results


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Of the medians, and the least and greatest that any two runs of a round give."""
    pairs = [one / other for one, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}x ({min(pairs):.2f}-{max(pairs):.2f})"


def _shown(result: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in result.items() if isinstance(value, int | float))
