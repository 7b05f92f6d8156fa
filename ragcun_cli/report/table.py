"""The results table: models by datasets, with the average and the isotropy, before any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragcun_cli.errors import UsageError
from ragcun_cli.recipe.problems import did_you_mean
from ragcun_cli.report.collect import ModelResults

METRIC_LABELS = {"ndcg@10": "nDCG@10", "recall@100": "Recall@100", "map": "MAP", "mrr": "MRR"}
MARKS = "Best bold, second underlined."
SCORE_DIGITS = 2
ISOSCORE_DIGITS = 3


@dataclass(frozen=True)
class Cell:
    """A figure, as it is and as printed (None for a missing one), and whether it is its column's best or second."""

    value: float | None
    text: str | None
    best: bool = False
    second: bool = False


@dataclass(frozen=True)
class ResultTable:
    """`rows[i]` belongs to `models[i]`, `rows[i][j]` to `columns[j]`. The caption says what the figures are.

    MARKS says what the marks are, where a format has them.
    """

    caption: str
    columns: list[str]
    models: list[str]
    rows: list[list[Cell]]


def build_table(models: Sequence[ModelResults], metric: str, datasets: Sequence[str] = ()) -> ResultTable:
    """The table of one metric x 100.

    A missing figure stays missing. A model lacking one of the datasets has no average: a mean over fewer would be
    read as one over all.

    Raises:
        UsageError: if the metric or a dataset is not among the results.
    """
    if metric not in METRIC_LABELS:
        raise UsageError(f"--metric {metric}: there is no such metric; {did_you_mean(metric, list(METRIC_LABELS))}")
    known = sorted({dataset for model in models for dataset in model.datasets})
    for dataset in datasets:
        if dataset not in known:
            raise UsageError(f"--datasets {dataset}: there is no result for it; {did_you_mean(dataset, known)}")
    shown = list(dict.fromkeys(datasets)) or known
    scores = [[_score(model, dataset, metric) for dataset in shown] for model in models]
    columns = [_ranked([row[place] for row in scores]) for place in range(len(shown))]
    labels = list(shown)
    if len(shown) > 1:
        columns.append(_ranked([_mean(row) for row in scores]))
        labels.append(f"Avg of {len(shown)}")
    isoscores = [_mean([_isoscore(model, dataset) for dataset in shown]) for model in models]
    columns.append([_unmarked(value, ISOSCORE_DIGITS) for value in isoscores])
    labels.append("IsoScore" if len(shown) == 1 else f"IsoScore, avg of {len(shown)}")
    return ResultTable(
        caption=_caption(models, metric, shown),
        columns=labels,
        models=[_label(model) for model in models],
        rows=[list(row) for row in zip(*columns, strict=True)],
    )


def _score(model: ModelResults, dataset: str, metric: str) -> float | None:
    result = model.datasets.get(dataset)
    return None if result is None else 100 * result.metrics[metric]


def _isoscore(model: ModelResults, dataset: str) -> float | None:
    result = model.datasets.get(dataset)
    return None if result is None else result.isoscore


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present and len(present) == len(values) else None


def _unmarked(value: float | None, digits: int) -> Cell:
    return Cell(value, None if value is None else f"{value:.{digits}f}")


def _ranked(values: Sequence[float | None]) -> list[Cell]:
    """Best and second best are decided on what is printed, so that equal figures share the mark."""
    cells = [_unmarked(value, SCORE_DIGITS) for value in values]
    printed = [float(cell.text) for cell in cells if cell.text is not None]
    if len(printed) < 2:
        return cells
    best, *others = sorted(set(printed), reverse=True)
    second = others[0] if others else None
    return [
        cell
        if cell.text is None
        else Cell(cell.value, cell.text, best=float(cell.text) == best, second=float(cell.text) == second)
        for cell in cells
    ]


def _label(model: ModelResults) -> str:
    return f"{model.name} (untouched)" if model.untouched else model.name


def _caption(models: Sequence[ModelResults], metric: str, datasets: Sequence[str]) -> str:
    queries = []
    for dataset in datasets:
        result = next(model.datasets[dataset] for model in models if dataset in model.datasets)
        queries.append(f"{dataset}: {result.queries} queries ({result.split})")
    return (
        f"{METRIC_LABELS[metric]} x 100, {_similarity(models)}, exact search. IsoScore: unbiased, of the passages; "
        f"1 is isotropic. {_dimensions(models)} {'; '.join(queries)}."
    )


def _similarity(models: Sequence[ModelResults]) -> str:
    named = {"euclidean": "Euclidean distance", "cosine": "cosine"}
    used = {model.similarity for model in models}
    if len(used) == 1:
        return named[used.pop()]
    return "Euclidean distance, in rows with +cosine the cosine"


def _dimensions(models: Sequence[ModelResults]) -> str:
    """IsoScore counts used dimensions against all there are, so a reader must know how many these are."""
    if len({model.dimensions for model in models}) == 1:
        return f"Embeddings of {models[0].dimensions} dimensions."
    return "Dimensions: " + ", ".join(f"{model.name} {model.dimensions}" for model in models) + "."
