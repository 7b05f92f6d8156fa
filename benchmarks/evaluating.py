"""`ragcun eval beir` from end to end, against beir with sentence-transformers: the same model, collection and scores.

    python benchmarks/evaluating.py --collection scifact.zip [--rounds 1]

Each side is a process of its own, from its start to its last figure: ragcun without a cache, ragcun again with what the
first run kept, and beir's own loader, exact search and evaluation around all-MiniLM-L6-v2 on the unpacked collection.
nDCG@10 must agree to 0.0005. Targets: >= 1.2x cold, and the second run >= 20x faster than beir's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import models

THREADS = "2"


def ragcun(collection: Path, cache: Path, results: Path) -> tuple[float, float]:
    """Seconds and nDCG@10."""
    command = [sys.executable, "-m", "ragcun_cli", "eval", "beir", "-m", models.MINILM, "-d", str(collection)]
    environment = {**measure.ENVIRONMENT, "RAGCUN_CACHE": str(cache), "OMP_NUM_THREADS": THREADS}
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--results", str(results), "--overwrite", "--json"], env=environment, capture_output=True, check=True
    )
    return time.perf_counter() - started, json.loads(done.stdout)["results"][0]["metrics"]["ndcg@10"]


def beir(folder: Path) -> tuple[float, float]:
    """The same of the other side."""
    environment = {**measure.ENVIRONMENT, "OMP_NUM_THREADS": THREADS}
    command = [sys.executable, __file__, "--beir", str(folder), "--collection", "-"]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    return time.perf_counter() - started, json.loads(done.stdout.splitlines()[-1])["ndcg"]


def beir_worker(folder: str) -> None:
    """beir as its README has it."""
    from beir.datasets.data_loader import GenericDataLoader
    from beir.retrieval import models as beir_models
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.search.dense.exact_search import DenseRetrievalExactSearch

    corpus, queries, qrels = GenericDataLoader(folder).load(split="test")
    model = DenseRetrievalExactSearch(beir_models.SentenceBERT(str(models.minilm())), batch_size=32)
    retriever = EvaluateRetrieval(model, score_function="cos_sim")
    results = retriever.retrieve(corpus, queries)
    ndcg, _, _, _ = retriever.evaluate(qrels, results, retriever.k_values)
    print(json.dumps({"ndcg": ndcg["NDCG@10"]}))


def main() -> None:
    """Run all three and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", required=True, help="a zip in BEIR's layout")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--beir", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.beir:
        return beir_worker(options.beir)
    collection = Path(options.collection)
    taken: dict[str, list[float]] = {"cold": [], "again": [], "beir": []}
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(collection) as archive:
            archive.extractall(folder)
        (corpus,) = Path(folder).rglob("corpus.jsonl")
        for number in range(options.rounds):
            cache, results = Path(folder) / f"cache{number}", Path(folder) / "results"
            scores = {}
            for side in ("cold", "again", "beir"):
                work = beir(corpus.parent) if side == "beir" else ragcun(collection, cache, results)
                taken[side].append(work[0])
                scores[side] = work[1]
                print(f"  {side}: {work[0]:.1f} s, nDCG@10 {work[1]:.5f}", file=sys.stderr)
            assert max(scores.values()) - min(scores.values()) < 0.0005, scores
    for side, each in taken.items():
        print(f"{side}: {measure.spread(each, 1)} s")
    print(f"beir / cold: {measure.ratio(taken['beir'], taken['cold'])}")
    print(f"beir / again: {measure.ratio(taken['beir'], taken['again'])}")
    return None


if __name__ == "__main__":
    main()
