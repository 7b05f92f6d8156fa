"""`ragcun train` as a process of its own, to be stopped, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file

# So long that no signal comes after the end; a run that should end is resumed with fewer.
SETTINGS = ["epochs=400", "max_steps=null", "save_every=2", "eval_every=30", "log_every=1", "learn_temperature=true"]
PATIENCE = 120.0  # seconds, for a machine that does other things too


class TrainCommand:
    """A running `ragcun train`."""

    def __init__(self, recipe: Path, output: Path, *arguments: str, settings: list[str] | None = None) -> None:
        chosen = [*(SETTINGS if settings is None else settings), f"output_dir='{output}'"]
        overrides = [part for value in chosen for part in ("--set", value)]
        self.output = output
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ragcun_cli", "train", "--recipe", str(recipe), *overrides, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # One thread each, wherever they run: another number of threads rounds otherwise.
            env={**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        )

    def wait_for_step(self, step: int) -> None:
        """Until a checkpoint of this step or a later one is there."""
        self.wait_for(lambda: any(name >= f"step-{step:08}" for name in self.checkpoints()))

    def checkpoints(self) -> list[str]:
        folder = self.output / "checkpoints"
        return sorted(path.name for path in folder.glob("step-*")) if folder.is_dir() else []

    def wait_for(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.process.stderr.read()}")
            assert time.monotonic() < deadline, "took too long"
            time.sleep(0.01)

    def workers(self) -> list[psutil.Process]:
        """The processes that train, by rank."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        found = [
            each for each in below if "ragcun_cli.train.worker" in each.cmdline() and each.ppid() != self.process.pid
        ]
        return sorted(found, key=lambda each: each.environ()["RANK"])

    def kill_tree(self) -> None:
        """SIGKILL to everything, as when a machine goes away."""
        top = psutil.Process(self.process.pid)
        for each in [top, *top.children(recursive=True)]:
            each.send_signal(signal.SIGKILL)

    def finish(self) -> tuple[int, str]:
        """Exit code, and what was said on stderr, boxes undone."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, " ".join(said.replace("│", " ").split())


def status(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "status.json").read_text())
    return content


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "projection.safetensors")}


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: what was logged, and the models."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    for name in ("final_model", "best_model"):
        ours, theirs = weights(one / name), weights(other / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
