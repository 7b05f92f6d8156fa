"""Start-up of `ragcun --help` against the smallest Typer program, in turn, as whole processes.

    python benchmarks/startup.py [runs]

Prints the seconds of both (minimum, median, maximum) and the ratio of the medians. The target of the help is
under 0.35 s on two cores.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

PEER = "import typer; app = typer.Typer(); app.command()(lambda name='x': None); app()"
PROGRAMS = {
    "ragcun --help": [sys.executable, "-m", "ragcun_cli", "--help"],
    "smallest Typer program --help": [sys.executable, "-c", PEER, "--help"],
}


def seconds(command: list[str]) -> float:
    """Wall seconds of one whole process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main(runs: int) -> None:
    """Time both in turn, so that a drift of the machine meets both."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for run in range(runs + 1):
        for name, command in PROGRAMS.items():
            taken = seconds(command)
            if run:  # the first of each fills the disk cache
                times[name].append(taken)
    for name, taken in times.items():
        print(f"{name:<30} min {min(taken):.3f}  median {statistics.median(taken):.3f}  max {max(taken):.3f} s")
    medians = [statistics.median(taken) for taken in times.values()]
    print(f"ratio of medians               {medians[0] / medians[1]:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
