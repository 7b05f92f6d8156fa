"""Do mined hard negatives train better than random ones? The same pairs, encoder, batches and steps with both.

    python benchmarks/mining.py --collection scifact.zip [--seeds 3] [--negatives 3] [--ranks 1-30]

Negatives for the train split, by `ragcun data mine` with all-MiniLM-L6-v2: near ones, and any of the corpus. The
contrastive arm is trained with each and scored on the test split; nDCG@10 by seed, and the untouched encoder's. Slow:
some ten minutes a seed on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ENCODER = "embedded:all-MiniLM-L6-v2"


def main() -> None:
    """Mine, train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--negatives", type=int, default=3)
    parser.add_argument("--ranks", default="1-30")
    parser.add_argument("--margin", help="as `data mine` takes it; any distance by default")
    options = parser.parse_args()
    length = ["--max-length", str(options.max_length)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        near = ["-m", ENCODER, "--ranks", options.ranks, "--pick", "sample", *length]
        near += ["--margin", options.margin] if options.margin else []
        for name, how in (("random", ["--pick", "corpus"]), ("mined", near)):
            figures = ragcun(
                "data", "mine", options.collection, *how, "-n", options.negatives, "-o", root / f"{name}.jsonl"
            )
            print(f"{name}: {figures['negatives']} negatives for {figures['pairs']} pairs", flush=True)
        untouched = score(root, options.collection, ENCODER, length)
        print(f"untouched: nDCG@10 {untouched:.4f}", flush=True)
        found: dict[str, list[float]] = {"random": [], "mined": []}
        for seed in range(options.seeds):
            for name, scores in found.items():
                run = root / f"{name}-{seed}"
                values = {
                    "base_model": ENCODER, "data.train": root / f"{name}.jsonl", "data.dev": "null", "seed": seed,
                    "epochs": options.epochs, "max_length": options.max_length, "output_dim": 384, "warmup_steps": 5,
                    "base_learning_rate": "2e-5", "output_dir": run,
                }  # fmt: skip
                sets = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
                ragcun("train", "--recipe", "baseline", *sets)
                scores.append(score(root, options.collection, str(run), []))
                print(f"seed {seed}, {name}: nDCG@10 {scores[-1]:.4f}", flush=True)
    gains = [mined - random for mined, random in zip(found["mined"], found["random"], strict=True)]
    for name, scores in found.items():
        print(f"{name}: mean {statistics.mean(scores):.4f} ({min(scores):.4f}-{max(scores):.4f})")
    print(f"mined - random: mean {statistics.mean(gains):+.4f}, by seed {', '.join(f'{gain:+.4f}' for gain in gains)}")


def score(root: Path, collection: str, model: str, arguments: list[str]) -> float:
    """nDCG@10 on the test split."""
    results = root / "results"
    found = ragcun(
        "eval",
        "beir",
        "-m",
        model,
        "-d",
        collection,
        "--results",
        results,
        "--no-robustness",
        "--overwrite",
        *arguments,
    )
    return float(found["results"][0]["metrics"]["ndcg@10"])


def ragcun(*arguments: object) -> Any:
    """What a command prints as JSON."""
    command = [sys.executable, "-c", "from ragcun_cli.main import main; main()", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[3:])} failed:\n{done.stderr[-2000:]}{done.stdout[-2000:]}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
