"""Reading `results/`: one entry per model, and a refusal to compare what is not comparable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.errors import DataError, UsageError

METRICS = ("ndcg@10", "recall@100", "map", "mrr")


@dataclass(frozen=True)
class DatasetResult:
    """One model on one dataset. `sha256` and `split` say which texts and judgements these were."""

    metrics: dict[str, float]
    isoscore: float | None
    queries: int
    split: str
    sha256: str


@dataclass(frozen=True)
class ModelResults:
    """One model on all its datasets. `arm` is what its recipe said, None for an untouched encoder."""

    name: str
    untouched: bool
    arm: dict[str, Any] | None
    dimensions: int
    similarity: str
    datasets: dict[str, DatasetResult]


def collect(results: Path) -> list[ModelResults]:
    """All models with results: untouched encoders first, then arms by what they add to the baseline.

    Raises:
        UsageError: if there are no results.
        DataError: if a result cannot be read, or two models were scored on different texts of one dataset.
    """
    models = [found for folder in _folders(results) if (found := _read_model(folder)) is not None]
    if not models:
        raise UsageError(
            f"{results}: there are no results here",
            "Score a model first: ragcun eval beir --model MODEL --datasets NAME (or name the folder: --results)",
        )
    _require_same_texts(models)
    return sorted(models, key=_order)


def _folders(results: Path) -> list[Path]:
    if not results.is_dir():
        return []
    return sorted(path for path in results.iterdir() if (path / "model.json").is_file())


def _read_model(folder: Path) -> ModelResults | None:
    model = _read_json(folder / "model.json")
    datasets = {}
    for path in sorted(folder.glob("*.json")):
        if path.name in ("model.json", "isotropy.json"):
            continue
        content = _read_json(path)
        try:
            isotropy = (content["isotropy"] or {}).get("passages", {})
            datasets[content["dataset"]["name"]] = DatasetResult(
                metrics={name: float(content["metrics"][name]) for name in METRICS},
                isoscore=isotropy.get("isoscore"),
                queries=content["dataset"]["queries"],
                split=content["dataset"]["split"],
                sha256=content["dataset"]["sha256"],
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: not a result of ragcun ({error!r})", "Remove it, or evaluate again.") from None
    if not datasets:
        return None
    try:
        return ModelResults(
            name=model["name"],
            untouched=model["kind"] == "untouched" and model["transform"] == "none",
            arm=model["arm"],
            dimensions=model["output_dim"],
            similarity=model["similarity"],
            datasets=datasets,
        )
    except KeyError as error:
        raise DataError(f"{folder / 'model.json'}: the key {error} is missing", "Evaluate again.") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})", "Evaluate again.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a file of ragcun's results", "Remove it, or evaluate again.")
    return content


def _require_same_texts(models: list[ModelResults]) -> None:
    first: dict[str, tuple[str, DatasetResult]] = {}
    for model in models:
        for dataset, result in model.datasets.items():
            other_name, other = first.setdefault(dataset, (model.name, result))
            if (other.sha256, other.split) != (result.sha256, result.split):
                raise DataError(
                    f"{dataset}: {other_name} ({other.split}, {other.sha256[:12]}…) and {model.name} "
                    f"({result.split}, {result.sha256[:12]}…) were scored on different texts or judgements",
                    "Evaluate both again on the same files; their figures must not stand in one column.",
                )


def _order(model: ModelResults) -> tuple[Any, ...]:
    arm = model.arm or {}
    return (
        not model.untouched,
        bool(arm.get("freeze_base", False)),
        float(arm.get("lambda_isotropy", 0)),
        float(arm.get("lambda_reg", 0)),
        model.name,
    )
