"""Exact search against the matrix product alone, against beir's exact search, and against float64.

    python benchmarks/searching.py steady    # per further 50,000 passages, against their product: target <= 1.3x
    python benchmarks/searching.py whole     # 100,000 passages, against beir 2.2: target >= 2.5x faster
    python benchmarks/searching.py memory    # a million passages: target a peak below 2 GiB
    python benchmarks/searching.py truth     # the first ten of five kinds of embeddings: target 100 % equal lists

1,000 queries, 512 dimensions, the first 1,000 of each (the first 10 for `truth`). Both sides take turns in one process.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as ragcun does, for both

import measure
import numpy as np
import torch

from ragcun_cli.evaluate.search import search
from ragcun_cli.evaluate.vectors import PassageVectors

QUERIES, DIMENSIONS, DEPTH = 1000, 512, 1000
FURTHER = 50_000  # passages
BEIR_CHUNK = 50_000


def cloud(count: int, seed: int) -> np.ndarray:
    """N(0, I), (count, 512) float32."""
    return torch.randn(count, DIMENSIONS, generator=torch.Generator().manual_seed(seed)).numpy()


def seconds(work: Callable[[], Any]) -> float:
    """Wall time."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turn(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side, once before for nothing."""
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side in list(sides) if number % 2 == 0 else list(reversed(sides)):
            spent = seconds(sides[side])
            if number:
                taken[side].append(spent)
    return taken


def product_alone(queries: np.ndarray, passages: np.ndarray) -> Callable[[], None]:
    """|p|^2 - 2 q.p of all passages, chunk by chunk into one buffer."""
    asked, buffer = torch.from_numpy(queries), torch.empty(len(queries), FURTHER)

    def work() -> None:
        for chunk in torch.from_numpy(passages).split(FURTHER):
            torch.addmm((chunk * chunk).sum(1)[None], asked, chunk.T, alpha=-2, out=buffer[:, : len(chunk)])

    return work


def steady(rounds: int) -> None:
    """What 400,000 further passages cost, by the difference of two searches."""
    queries, passages = cloud(QUERIES, 0), cloud(600_000, 1)
    few, many = PassageVectors.of_array(passages[:200_000]), PassageVectors.of_array(passages)
    sides = {
        "few": lambda: search(queries, few, DEPTH),
        "many": lambda: search(queries, many, DEPTH),
        "product": product_alone(queries, passages[200_000:]),
    }
    taken = in_turn(sides, rounds)
    further = [(more - less) / 8 for more, less in zip(taken["many"], taken["few"], strict=True)]
    alone = [each / 8 for each in taken["product"]]
    print(f"per further 50,000 passages: search {measure.spread(further, 3)} s, product {measure.spread(alone, 3)} s")
    print(f"search / product: {measure.ratio(further, alone)}")


def whole(rounds: int) -> None:
    """beir gets the same embeddings from a model that only looks them up."""
    from beir.retrieval.search.dense.exact_search import DenseRetrievalExactSearch

    queries, passages = cloud(QUERIES, 0), cloud(100_000, 1)

    class Lookup:
        def encode_queries(self, texts: list[str], **_: Any) -> torch.Tensor:
            return torch.from_numpy(queries)

        def encode_corpus(self, texts: list[dict[str, str]], **_: Any) -> torch.Tensor:
            return torch.from_numpy(passages[[int(each["text"]) for each in texts]])

    corpus = {str(number): {"title": "", "text": str(number)} for number in range(len(passages))}
    asked = {f"q{number}": str(number) for number in range(QUERIES)}
    vectors = PassageVectors.of_array(passages)
    sides = {
        "ragcun": lambda: search(queries, vectors, DEPTH),
        "beir": lambda: DenseRetrievalExactSearch(Lookup(), corpus_chunk_size=BEIR_CHUNK).search(
            corpus, asked, DEPTH, "dot"
        ),
        "product": product_alone(queries, passages),
    }
    taken = in_turn(sides, rounds)
    for side, each in taken.items():
        print(f"{side}: {measure.spread(each)} s")
    print(f"beir / ragcun: {measure.ratio(taken['beir'], taken['ragcun'])}")
    print(f"ragcun / product: {measure.ratio(taken['ragcun'], taken['product'])}")


def memory(count: int) -> None:
    """Peak resident memory of a process that searches a corpus larger than its budget."""
    shard = 50_000
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(count // shard):
            paths.append(Path(folder) / f"{number}.npy")
            np.save(paths[-1], cloud(shard, number + 1))
        places = np.stack(
            [np.repeat(np.arange(count // shard), shard), np.tile(np.arange(shard), count // shard)], axis=1
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        passages = PassageVectors.of_places(paths, DIMENSIONS, places)
        for budget in (256, 1024):
            spent = seconds(lambda budget=budget: search(cloud(QUERIES, 0), passages, DEPTH, memory=budget << 20))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{count} passages ({count * DIMENSIONS * 4 / 2**20:.0f} MiB), budget {budget} MiB: "
                f"peak {peak:.0f} MiB, of these {before:.0f} before the search, {spent:.1f} s",
                flush=True,
            )


def truth(count: int) -> None:
    """The first ten against distances in float64, taken directly."""
    rng = np.random.default_rng(0)
    asked = 200
    centres, mean = rng.standard_normal((200, DIMENSIONS)), 10 * rng.standard_normal(DIMENSIONS)

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def draw(kind: str, number: int) -> np.ndarray:
        noise = rng.standard_normal((number, DIMENSIONS))
        if kind == "200 clusters, sigma 0.3":
            return centres[rng.integers(0, 200, number)] + 0.3 * noise
        if kind == "mean-dominated":
            return mean + 0.1 * noise
        if kind == "unit-norm cone":
            return unit(mean / np.linalg.norm(mean) * 2 + noise / DIMENSIONS**0.5)
        return noise

    for kind in ("N(0, I)", "200 clusters, sigma 0.3", "mean-dominated", "unit-norm cone", "near-duplicates"):
        passages, queries = draw(kind, count), draw(kind, asked)
        if kind == "near-duplicates":
            passages = unit(passages)
            passages[count // 2 :] = unit(passages[: count // 2] + 1e-3 * rng.standard_normal((count // 2, DIMENSIONS)))
            queries = unit(passages[:asked] + 1e-3 * rng.standard_normal((asked, DIMENSIONS)))
        passages, queries = passages.astype(np.float32), queries.astype(np.float32)
        wide = passages.astype(np.float64)
        expected = np.stack(
            [np.argsort(((wide - query) ** 2).sum(1), kind="stable")[:10] for query in queries.astype(float)]
        )
        found = search(queries, PassageVectors.of_array(passages), 10)
        equal = (found.passages == expected).all(axis=1).mean()
        print(
            f"{kind}: {100 * equal:.1f} % equal lists, {found.unproven.sum()} of {asked} queries searched again",
            flush=True,
        )


def main() -> None:
    """Run one of the four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("steady", "whole", "memory", "truth"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--passages", type=int, help="of `memory` and `truth`; by default 1,000,000 and 20,000")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "steady":
        steady(options.rounds)
    elif options.what == "whole":
        whole(options.rounds)
    elif options.what == "memory":
        memory(options.passages or 1_000_000)
    else:
        truth(options.passages or 20_000)


if __name__ == "__main__":
    main()
