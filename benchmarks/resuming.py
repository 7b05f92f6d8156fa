"""SIGKILL at random moments of a short run, the whole tree of processes, and what --resume makes of it.

    python benchmarks/resuming.py [--kills 50] [--processes 2] [--seed 0]

A small random encoder trains on made-up words for 100 steps with dropout, accumulation, dev scores and a checkpoint
after every second step. Once it runs undisturbed; then again and again, each time killed at another moment between its
first second and its last, and resumed. Target: all resumes end with the same weights and metrics.jsonl, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil

from ragcun_cli.train.checkpoint import newest_valid
from tests.tiny_models import build_tiny_bert, write_collection, write_triples

RECIPE = """
base_model: {folder}/encoder
output_dim: 24
max_length: 64
lambda_isotropy: 1
lambda_reg: 0.1
learn_temperature: true
isotropy_options: {{slices: 64}}
epochs: 20
batch_size: 8
gradient_accumulation_steps: 2
warmup_steps: 2
base_learning_rate: 1e-3
log_every: 1
save_every: 2
eval_every: 25
data: {{train: {folder}/triples.jsonl, dev: {folder}/dev}}
"""


def main() -> None:
    """Kill and resume, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"RAGCUN_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        build_tiny_bert(folder / "encoder")
        write_triples(folder / "triples.jsonl", 80)
        write_collection(folder / "dev", 20, split="dev")
        (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
        started = time.monotonic()
        assert train(folder, "whole", options.processes).wait() == 0
        seconds = time.monotonic() - started
        where: Counter[str] = Counter()
        same = 0
        for number in range(options.kills):
            run = f"killed-{number}"
            process = train(folder, run, options.processes)
            time.sleep(moments.uniform(1, seconds))
            where[kill(process, folder / run)] += 1
            resumed = train(folder, run, options.processes, "--resume").wait() == 0
            equal = resumed and content(folder / run) == content(folder / "whole")
            same += equal
            print(f"  kill {number + 1}: {'the same' if equal else 'DIFFERENT'}", file=sys.stderr)
    print(f"{options.kills} SIGKILLs of a run of {seconds:.0f} s in {options.processes} processes: "
          + ", ".join(f"{count} {place}" for place, count in sorted(where.items())))  # fmt: skip
    print(f"{same} of {options.kills} resumes end with the same weights and metrics.jsonl")


def train(folder: Path, run: str, processes: int, *flags: str) -> subprocess.Popen[bytes]:
    """`ragcun train` into this run's folder."""
    command = ["train", "--recipe", str(folder / "recipe.yaml"), "--set", f"output_dir={folder / run}"]
    return subprocess.Popen(
        [sys.executable, "-m", "ragcun_cli", *command, "--processes", str(processes), *flags],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def kill(process: subprocess.Popen[bytes], run: Path) -> str:
    """SIGKILL to the process and all below it; where the run was."""
    if process.poll() is not None:
        return "after its end"
    top = psutil.Process(process.pid)
    for each in [*top.children(recursive=True), top]:
        try:
            each.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()
    if newest_valid(run / "checkpoints")[0] is None:
        return "before its first checkpoint"
    writing = list((run / "checkpoints").glob(".*"))
    return "while a checkpoint was written or removed" if writing else "between checkpoints"


def content(run: Path) -> dict[str, bytes]:
    """What must be the same."""
    names = ("final_model", "best_model", "checkpoint_epoch_1", "checkpoint_epoch_20")
    found = {path.as_posix(): (run / path).read_bytes() for path in (Path("metrics.jsonl"),)}
    for name in names:
        for weights in ("model.safetensors", "projection.safetensors"):
            found[f"{name}/{weights}"] = (run / name / weights).read_bytes()
    assert json.loads((run / "status.json").read_text(encoding="utf-8"))["state"] == "finished"
    return found


if __name__ == "__main__":
    main()
