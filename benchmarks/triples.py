"""500,000 triples of MS MARCO's shape: converting, opening and reading them, against `datasets.load_dataset("json")`.

    python benchmarks/triples.py [--rows 500000] [--runs 3]

Each side in a process of its own, the file in the page cache for both: made ready once from JSON Lines (nothing kept
before), opened again, and read for one epoch in a random order, 16 triples at a time, every text of them. Passages are
put together of 20,000 drawn ones, each different. Targets: conversion >= 150,000 rows/s, opening < 0.2 s, resident
memory of the epoch < 1 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import models
import numpy as np
import psutil
from texts import Writer

BATCH = 16
SETTLED = 3  # seconds: a file that was written a moment ago is hashed at each opening, as nobody's training data is
DRAWN_PASSAGES = 20_000


def main() -> None:
    """Write the file, run both sides in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--worker", choices=["ragcun", "datasets"])
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    if options.worker:
        {"ragcun": ragcun, "datasets": datasets}[options.worker](options.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "triples.jsonl"
        write(file, options.rows)
        print(f"{options.rows} triples, {file.stat().st_size / 1e6:.0f} MB")
        sides = {side: ["--worker", side, "--file", str(file)] for side in ("ragcun", "datasets")}
        results = measure.alternate(__file__, sides, options.runs)
    for what, digits in (("rows_per_second", 0), ("open_seconds", 4), ("epoch_seconds", 2), ("peak_mib", 0)):
        found = {side: [float(run[what]) for run in runs] for side, runs in results.items()}
        for side, values in found.items():
            print(f"{what} {side}: {measure.spread(values, digits)}")
        print(f"{what} ragcun / datasets: {measure.ratio(found['ragcun'], found['datasets'])}")


def write(file: Path, rows: int) -> None:
    """Triples whose texts have MS MARCO's lengths."""
    writer, draw = Writer(models.minilm() / "vocab.txt", 0), random.Random(0)
    drawn = [writer.passage().split() for _ in range(DRAWN_PASSAGES)]
    words = writer.words[:9000]

    def passage() -> str:
        base = drawn[draw.randrange(DRAWN_PASSAGES)]
        cut = draw.randrange(len(base))
        return " ".join([*base[cut:], *draw.choices(words, k=2), *base[:cut]])

    with file.open("w", encoding="utf-8") as stream:
        for _ in range(rows):
            query = " ".join(draw.choices(words, k=draw.randint(4, 12)))
            stream.write(json.dumps({"query": query, "positive": passage(), "negative": passage()}) + "\n")
    time.sleep(SETTLED)


def ragcun(file: Path) -> None:
    """`open_triples`, twice, and an epoch of batches."""
    with tempfile.TemporaryDirectory(dir=file.parent) as cache:
        os.environ["RAGCUN_CACHE"] = cache
        from ragcun_cli.data.batches import BatchSequence
        from ragcun_cli.data.triples.prepared import open_triples

        started = time.perf_counter()
        table, _ = open_triples(file)
        made = time.perf_counter() - started
        started = time.perf_counter()
        table, _ = open_triples(file)
        opened = time.perf_counter() - started
        sequence = BatchSequence(table, BATCH, 0)
        started = time.perf_counter()
        read = 0
        for number in range(len(table) // BATCH):
            read += sum(len(table.texts[text]) for text in sequence.batch(number).texts().tolist())
        report(len(table), made, opened, time.perf_counter() - started, read)


def datasets(file: Path) -> None:
    """The same by the library that everybody takes."""
    with tempfile.TemporaryDirectory(dir=file.parent) as cache:
        import datasets as library

        library.disable_progress_bars()
        started = time.perf_counter()
        table = library.load_dataset("json", data_files=str(file), split="train", cache_dir=cache)
        made = time.perf_counter() - started
        started = time.perf_counter()
        table = library.load_dataset("json", data_files=str(file), split="train", cache_dir=cache)
        opened = time.perf_counter() - started
        order = np.random.default_rng(0).permutation(len(table))
        started = time.perf_counter()
        read = 0
        for start in range(0, len(table) - BATCH + 1, BATCH):
            batch = table[order[start : start + BATCH].tolist()]
            read += sum(len(text) for column in ("query", "positive", "negative") for text in batch[column])
        report(len(table), made, opened, time.perf_counter() - started, read)


def report(rows: int, made: float, opened: float, epoch: float, characters: int) -> None:
    """peak: of the whole process, conversion and mapped pages included; resident: at the end of the epoch."""
    measure.report(
        rows_per_second=rows / made,
        open_seconds=opened,
        epoch_seconds=epoch,
        characters=characters,
        resident_mib=psutil.Process().memory_info().rss / 2**20,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
    )


if __name__ == "__main__":
    main()
