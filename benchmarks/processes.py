"""One process against two, DDP against FSDP2: throughput, communication and memory, for the record.

    python benchmarks/processes.py [--model minilm|mpnet] [--steps 12] [--runs 3]

The real MiniLM (or MPNet-base's shape with random weights) trains with SIGReg on texts of realistic length, 16 triples
a step, 128 tokens; each process has one thread, also the single one. Communication is what a step takes longer than the
same step without exchange of gradients and without gathering embeddings (each process then loses what the other knows:
that run only shows the time). FSDP2 runs on CPUs by the help of the tests. Memory is each process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import models
import texts

SIDES = {"one": (1, "auto", False), "ddp": (2, "ddp", False), "ddp alone": (2, "ddp", True), "fsdp": (2, "fsdp", False)}
WARM_UP = 2


def main() -> None:
    """Run all sides in turn and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["minilm", "mpnet"], default="minilm")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        train(options)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = texts.Writer(models.minilm() / "vocab.txt", seed=0)
        lines = (json.dumps(each) + "\n" for each in writer.triples(16 * (options.steps + WARM_UP)))
        (folder / "triples.jsonl").write_text("".join(lines), encoding="utf-8")
        if options.model == "mpnet":
            models.mpnet_shape(folder / "mpnet")
        found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for number in range(options.runs):
            for side in SIDES:
                found[side].append(launch(options, side, folder))
                print(f"  run {number + 1}: {side}: {found[side][-1]}", file=sys.stderr)
    speeds = {side: [each["triples_per_second"] for each in runs] for side, runs in found.items()}
    for side in ("one", "ddp", "fsdp"):
        processes = SIDES[side][0]
        each = [speed / processes for speed in speeds[side]]
        memory = [run["memory"] / 2**20 for run in found[side]]
        of_all, of_one = measure.spread(speeds[side]), measure.spread(each)
        print(f"{side:5} {processes} x 1 thread: {of_all} triples/s, {of_one} a process")
        print(f"      peak memory of a process {measure.spread(memory, 0)} MiB")
    print(f"two processes (ddp) against one {measure.ratio(speeds['ddp'], speeds['one'])}")
    share = 1 - statistics.median(speeds["ddp"]) / statistics.median(speeds["ddp alone"])
    print(f"communication: {100 * share:.1f} % of a step")


def launch(options: argparse.Namespace, side: str, folder: Path) -> dict[str, float]:
    """One side in fresh processes; what its first one reported."""
    processes = SIDES[side][0]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", __file__,
        "--side", side, "--folder", str(folder), "--model", options.model, "--steps", str(options.steps),
    ]  # fmt: skip
    environment = {**measure.ENVIRONMENT, "OMP_NUM_THREADS": "1", "RAGCUN_CACHE": str(folder / "cache")}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(finished.stderr[-2000:])
    result: dict[str, float] = json.loads(finished.stdout.strip().splitlines()[-1])
    return result


def train(options: argparse.Namespace) -> None:
    """Some steps, the first of them not counted."""
    import contextlib

    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.train import step
    from tests.distributed import tasks

    processes, parallel, alone = SIDES[options.side]
    if processes == 1:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name)
    model = models.MINILM if options.model == "minilm" else options.folder / "mpnet"
    values = {
        "base_model": model, "data.train": options.folder / "triples.jsonl", "data.dev": "null", "max_length": 128,
        "parallel": parallel, "output_dir": options.folder / "run", "epochs": 1, "warmup_steps": 0,
    }  # fmt: skip
    training = tasks.prepared(load_recipe("isotropy", [f"{key}={value}" for key, value in values.items()]))
    if alone:
        world_size = training.world.size
        step.gather_rows = lambda rows, places: rows.repeat(world_size, 1)[: sum(map(len, places))]
        training.accelerator.no_sync = lambda _: contextlib.nullcontext()
        training.model = training.encoder
    for number in range(options.steps + WARM_UP):
        if number == WARM_UP:
            started = time.perf_counter()
        step.optimiser_step(training)
        training.progress.step += 1
    seconds = time.perf_counter() - started
    if training.world.is_main:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        measure.report(triples_per_second=16 * options.steps / seconds, memory=memory)


if __name__ == "__main__":
    main()
