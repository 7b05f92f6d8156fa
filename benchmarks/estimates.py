"""How far an estimate of `ragcun preflight` is from the time of the training itself, for the demo's three arms.

Target: within 25 %. Each round estimates and trains each arm with an empty cache, one after another; the peer is the
clock.

    python benchmarks/estimates.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARMS = ("demo-baseline", "demo-isotropy", "demo-frozen")


def run(folder: Path, *arguments: str) -> tuple[float, str]:
    """Seconds, and what was printed, of one command with a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "RAGCUN_CACHE": cache}
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "ragcun_cli", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - started
    return seconds, done.stdout


def main() -> None:
    """Print each round, and of each arm the median ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    ratios: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run(folder, "demo", "--quick", "--folder", "warm-up")  # the collection, and files that the system reads once
        for number in range(rounds):
            for arm in ARMS:
                checked, said = run(folder, "preflight", "--recipe", arm, "--json")
                estimate = json.loads(said)["estimates"][arm]["here"]
                seconds, _ = run(folder, "train", "--recipe", arm, "--overwrite", "--json")
                ratios[arm].append(estimate["seconds"] / seconds)
                parts = ", ".join(f"{name} {each:.1f}" for name, each in estimate["parts"].items())
                print(
                    f"round {number + 1} {arm}: estimated {estimate['seconds']:.1f} s ({parts}), took {seconds:.1f} s: "
                    f"{ratios[arm][-1]:.2f}; preflight itself {checked:.0f} s",
                    flush=True,
                )
    for arm, seen in ratios.items():
        print(f"{arm}: {statistics.median(seen):.2f} ({min(seen):.2f}-{max(seen):.2f}) of the real time")


if __name__ == "__main__":
    main()
