"""Results on disk as `eval beir` writes them: real searches of made-up embeddings, by models that never were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragcun_cli.evaluate.datasets import Dataset, find_datasets
from ragcun_cli.evaluate.results import check_results_folder, claim_results_folder, write_results
from ragcun_cli.evaluate.scoring import Scheme, evaluate
from ragcun_cli.evaluate.search import search
from ragcun_cli.recipe.comparing import digest_but_seed, digest_but_terms
from ragcun_cli.results.model_entry import ModelEntry
from tests.retrieval_tasks import embedded_by, write_task

DIMENSIONS = 8
PASSAGES = 60
QUERIES = 40


def make_dataset(folder: Path, queries: int = QUERIES, split: str = "test") -> Path:
    """A collection whose texts are numbers: query i is after passage i."""
    passages = {f"p{number}": str(number) for number in range(PASSAGES)}
    asked = {f"q{number}": str(PASSAGES + number) for number in range(queries)}
    return write_task(folder, passages, asked, {f"q{number}": {f"p{number}": 1} for number in range(queries)}, split)


def dataset_at(path: Path) -> Dataset:
    """As an evaluation finds it."""
    return find_datasets([str(path)], path.parent, None)[0][0]


def score_model(
    results: Path,
    name: str,
    datasets: Sequence[Dataset],
    noise: float,
    arm: dict[str, Any] | None = None,
    seed: int = 0,
    max_length: int = 64,
) -> Path:
    """Score a model that embeds a query near its passage, the nearer the less noise; returns its folder of results."""
    recipe = None
    if arm is not None:
        whole = recipe_of(arm, seed)
        digests = {"recipe": digest_but_seed(whole), "recipe_but_terms": digest_but_terms(whole)}
        recipe = {**arm, "seed": seed, **digests}
    entry = ModelEntry.of({
        "name": name, "kind": "trained" if arm else "untouched", "identity": f"sha256:{name}", "path": f"runs/{name}",
        "found_at": None, "asked_name": name, "asked_max_length": None,
        "base_model": "encoder", "base_identity": "sha256:encoder", "head": "residual" if arm else "none",
        "output_dim": DIMENSIONS, "max_length": max_length, "unit_norm_features": False,
        "tokenizer": "BertTokenizer", "tokenizer_sha256": "0" * 64, "precision": "float32", "arm": recipe,
        "similarity": "euclidean", "transform": "none", "fit_on": None, "fit_sha256": None,
    })  # fmt: skip
    folder = check_results_folder(results, entry, datasets, overwrite=False)
    claim_results_folder(folder, entry)
    for dataset in datasets:
        texts = np.random.default_rng(1).normal(size=(PASSAGES, DIMENSIONS))
        found = {}
        for part_name, part in dataset.parts.items():
            # What is hard about a query is hard for every model; what a seed adds is its own.
            shared = np.random.default_rng(2).normal(size=(len(part.queries), DIMENSIONS))
            own = np.random.default_rng(100 + seed).normal(size=(len(part.queries), DIMENSIONS))
            asked = texts[: len(part.queries)] + noise * (shared + 0.3 * own)
            vectors = np.concatenate([texts, asked]).astype(np.float32)

            def encode(numbers: Sequence[str], vectors: np.ndarray = vectors) -> np.ndarray:
                return vectors[[int(number) for number in numbers]]

            found[part_name] = evaluate(embedded_by(encode, part), part, Scheme(), None, search, True, results)
        write_results(folder, entry, dataset, found, {"precision": "float32"})
    return folder


def recipe_of(arm: dict[str, Any], seed: int) -> dict[str, Any]:
    """As a run's folder has it."""
    return {"batch_size": 16, "gradient_accumulation_steps": 2, **arm, "seed": seed}


def arm(isotropy: float = 0.0, frozen: bool = False) -> dict[str, Any]:
    """What a result says of a recipe."""
    return {
        "name": "arm", "isotropy": "sigreg", "lambda_isotropy": isotropy, "lambda_reg": 0.0, "freeze_base": frozen,
        "contrastive": "infonce", "temperature": 0.05,
    }  # fmt: skip


def three_arms(root: Path, seeds: Sequence[int] = (0, 1, 2), names: Sequence[str] = ("one", "two")) -> Path:
    """An untouched encoder, a baseline, a clearly better arm and one like the baseline, on small datasets; the folder
    of results.
    """
    datasets = [dataset_at(make_dataset(root / "data" / name)) for name in names]
    results = root / "results"
    score_model(results, "encoder", datasets, 1.0)
    for seed in seeds:
        score_model(results, f"baseline-seed{seed}", datasets, 0.9, arm(), seed)
        score_model(results, f"isotropy-seed{seed}", datasets, 0.5, arm(1.0), seed)
        score_model(results, f"frozen-seed{seed}", datasets, 0.9, arm(1.0, frozen=True), seed + 10)
    return results
