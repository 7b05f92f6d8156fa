"""What a checkpoint costs the training thread, for a model of 110M parameters.

    python benchmarks/saving.py [--saves 5] [--step-seconds 1.0]

The state of an encoder of BERT-base's size (weights and AdamW's two moments: 1.3 GB) is saved by ragcun's `Saver`, and
by writing it in the training thread, as accelerate's save_state does (no hashes, no fsync: the least it could cost).
Between two saves the thread does what training does, products of matrices, for a step's time, and then the optimiser's
step. "Held" is what the save adds to the thread: handing the state over, and waiting before the optimiser's step.
"Slower" is how much longer the products take while a checkpoint is copied and written beside them.
Target: held for <= 5 % of a step of one second.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure

PARAMETERS = 110_000_000
TENSORS = 200  # as many as BERT-base has
SIZE = 1024  # of the matrices


def main() -> None:
    """Save both ways in turn and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--step-seconds", type=float, default=1.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        held, slower, total = save_beside(Path(folder), options.saves, options.step_seconds)
        plain = save_in_thread(Path(folder), options.saves)
    shares = [100 * each / options.step_seconds for each in held]
    print(f"held by ragcun            {measure.spread(held, 4)} s, {measure.spread(shares)} % of a step (target 5 %)")
    print(f"  passes beside it        {measure.spread(slower)}x as long")
    print(f"  until the file is whole {measure.spread(total)} s")
    print(f"held by writing in the training thread {measure.spread(plain)} s")


def state() -> tuple[dict, dict]:
    """Weights and moments of the size."""
    import torch

    each = PARAMETERS // TENSORS
    weights = {f"encoder.{number}": torch.randn(each) for number in range(TENSORS)}
    moments = {f"{number}.{name}": torch.randn(each) for number in range(TENSORS) for name in ("exp_avg", "exp_avg_sq")}
    return weights, moments


def passes(seconds: float | None, count: int | None) -> tuple[int, float]:
    """Matrix products for so long, or so many; how many, and how long."""
    import torch

    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    started, done = time.perf_counter(), 0
    while (count is None and time.perf_counter() - started < (seconds or 0)) or (count is not None and done < count):
        left @ right
        done += 1
    return done, time.perf_counter() - started


def save_beside(folder: Path, saves: int, seconds: float) -> tuple[list[float], list[float], list[float]]:
    """Seconds held, factor of the passes, and seconds until a checkpoint is whole, for each save."""
    from ragcun_cli.train.checkpoint import TrainingState
    from ragcun_cli.train.saving import Saver

    weights, moments = state()
    saver = Saver(folder, folder / "checkpoints", 2, lambda _: None)
    count, alone = passes(seconds, None)
    held, slower, total = [], [], []
    for number in range(saves):
        began = time.perf_counter()
        saver.begin(TrainingState(number + 1, weights, moments, {}, {}, {}))
        handed_over = time.perf_counter() - began
        _, beside = passes(None, count)
        waits = time.perf_counter()
        saver.before_update()
        held.append(handed_over + time.perf_counter() - waits)
        slower.append(beside / alone)
        saver.finish()
        total.append(time.perf_counter() - began)
    return held, slower, total


def save_in_thread(folder: Path, saves: int) -> list[float]:
    """Seconds of writing the same two files."""
    from safetensors.torch import save_file

    weights, moments = state()
    taken = []
    for number in range(saves):
        place = folder / f"plain-{number % 2}"
        place.mkdir(exist_ok=True)
        began = time.perf_counter()
        save_file(weights, place / "model.safetensors")
        save_file(moments, place / "optimiser.safetensors")
        taken.append(time.perf_counter() - began)
    assert statistics.median(taken) > 0
    return taken


if __name__ == "__main__":
    main()
