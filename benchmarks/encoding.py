"""`encode` against `SentenceTransformer.encode`: the same MiniLM, passages of several kinds of length, in one process.

    python benchmarks/encoding.py [--passages 2000] [--rounds 3] [--threads 2]

Both take turns on the same texts. Embeddings must agree to 1e-5. Target: >= 1.17x on realistic lengths, never below
1.0x on any.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as ragcun does, for both

import measure
import models
import texts

SHORT, LONG = 6, 150  # words


def lengths(writer: texts.Writer, passages: int) -> dict[str, list[str]]:
    """Texts by kind; those of long texts are fewer, so that each kind takes about as long."""
    few = passages // 3
    return {
        "realistic": [writer.passage() for _ in range(passages)],
        "all short": [writer.text(SHORT) for _ in range(passages)],
        "all long": [writer.text(LONG) for _ in range(few)],
        "short and long": [writer.text((SHORT, LONG)[number % 2]) for number in range(few)],
        "queries": [writer.query() for _ in range(passages)],
        "one long among short": [writer.text(LONG if number == few else SHORT) for number in range(passages)],
    }


def seconds(encode: Any, some: list[str]) -> tuple[float, Any]:
    """Wall seconds, and what came out."""
    started = time.perf_counter()
    embeddings = encode(some)
    return time.perf_counter() - started, embeddings


def main() -> None:
    """Time both on each kind of text and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    from ragcun_cli.model import IsotropicGaussianEncoder

    torch.set_num_threads(options.threads)
    ours = IsotropicGaussianEncoder.untouched(models.MINILM).encode
    peer = SentenceTransformer(str(models.minilm()), device="cpu")
    sides = {"ragcun": ours, "peer": lambda some: peer.encode(some, show_progress_bar=False)}
    writer = texts.Writer(models.minilm() / "vocab.txt", seed=1)
    for kind, some in lengths(writer, options.passages).items():
        taken: dict[str, list[float]] = {side: [] for side in sides}
        embeddings = {}
        for side in sides:
            sides[side](some[:50])
        for number in range(options.rounds):
            for side in list(sides) if number % 2 == 0 else list(reversed(sides)):
                spent, embeddings[side] = seconds(sides[side], some)
                taken[side].append(len(some) / spent)
        assert np.abs(embeddings["ragcun"] - embeddings["peer"]).max() < 1e-5
        speeds = {side: measure.spread(each, 1) for side, each in taken.items()}
        ratio = measure.ratio(taken["ragcun"], taken["peer"])
        print(f"{kind:<22} {speeds['ragcun']} texts/s, sentence-transformers {speeds['peer']}: {ratio}", flush=True)


if __name__ == "__main__":
    main()
