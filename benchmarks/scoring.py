"""All metrics of 1,000 queries x 1,000 results, against beir's evaluation with the dictionaries that it needs.

    python benchmarks/scoring.py [--rounds 5]

20 judgements a query, half of them among the results. beir's side is building its dictionaries from the same arrays, as
a search ends with, and `EvaluateRetrieval.evaluate` at six cuts. Means must agree to beir's five digits. Target: >= 8x.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import numpy as np

from ragcun_cli.results.metrics import Judgements, means, score

QUERIES, DEPTH, PASSAGES, JUDGED = 1000, 1000, 100_000, 20
CUTS = [1, 3, 5, 10, 100, 1000]


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from beir.retrieval.evaluation import EvaluateRetrieval

    rng = np.random.default_rng(0)
    ranked = np.stack([rng.permutation(PASSAGES)[:DEPTH] for _ in range(QUERIES)])
    grades = []
    for row in ranked:
        judged = np.concatenate([rng.choice(row, JUDGED // 2, replace=False), rng.choice(PASSAGES, JUDGED // 2)])
        grades.append(dict(zip(judged.tolist(), rng.integers(0, 4, JUDGED).tolist(), strict=True)))
    qrels = {f"q{number}": {f"d{p}": g for p, g in each.items()} for number, each in enumerate(grades)}
    names = [f"d{number}" for number in range(PASSAGES)]

    def ours() -> Any:
        return score(Judgements.of(grades), ranked)

    def theirs() -> Any:
        run = {
            f"q{number}": {names[passage]: float(DEPTH - rank) for rank, passage in enumerate(row)}
            for number, row in enumerate(ranked.tolist())
        }
        return EvaluateRetrieval.evaluate(qrels, run, CUTS)

    taken: dict[str, list[float]] = {"ragcun": [], "beir": []}
    answers: dict[str, Any] = {}
    for _ in range(options.rounds):
        for side, work in (("ragcun", ours), ("beir", theirs)):
            started = time.process_time()
            answers[side] = work()
            taken[side].append(time.process_time() - started)
    mean = means(answers["ragcun"])
    ndcg, average, recall, precision = answers["beir"]
    for name, value in {**ndcg, **average, **recall, **precision}.items():
        mine = name.replace("P@", "precision@").lower()
        assert mine not in mean or abs(mean[mine] - value) < 6e-6, name
    for side, each in taken.items():
        print(f"{side}: {measure.spread(each, 4)} CPU-seconds")
    print(f"beir / ragcun: {measure.ratio(taken['beir'], taken['ragcun'])}")


if __name__ == "__main__":
    main()
