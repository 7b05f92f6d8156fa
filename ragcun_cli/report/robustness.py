"""How much nDCG@10 remains when embeddings are compressed, where isotropy is most likely to help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragcun_cli.errors import UsageError
from ragcun_cli.report.rows import Row
from ragcun_cli.report.scores import choose_datasets
from ragcun_cli.report.table import (
    MISSING,
    SCORE_DIGITS,
    Cell,
    FigureColumn,
    ResultTable,
    TableRow,
    mean_cell,
    ranked,
    seeds_sentence,
)

METRIC = "ndcg@10"


def build_robustness(rows: Sequence[Row], named: Sequence[str], options: Mapping[str, object]) -> ResultTable:
    """Build the table, with a line for each row and dataset.

    Raises:
        UsageError: if there is no result for a dataset named, or none has figures after a transform.
    """
    datasets = choose_datasets(rows, named)
    results = [result for row in rows for member in row.members for result in member.datasets.values()]
    kinds = list(dict.fromkeys(kind for result in results for kind in result.robustness))
    if not kinds:
        raise UsageError(
            "no result has scores after int8, binary or truncation",
            "Evaluate again without --no-robustness.",
        )
    lines = []
    for dataset in datasets:
        columns = [[_unchanged(row, dataset) for row in rows]]
        columns += [[_after(row, dataset, kind) for row in rows] for kind in kinds]
        marked = [ranked(column, SCORE_DIGITS) for column in columns]
        lines += [
            TableRow((row.label, dataset), tuple(cells))
            for row, cells in zip(rows, zip(*marked, strict=True), strict=True)
        ]
    return ResultTable(
        caption=" ".join(
            part
            for part in (
                "nDCG@10 x 100 of the embeddings as they are, with 8 bits or 1 bit per dimension, and with the first "
                "dimensions only.",
                seeds_sentence(rows),
            )
            if part
        ),
        notes=(),
        marks="Best on each dataset in bold, second best underlined." if len(rows) > 1 else "",
        stubs=("model", "dataset"),
        columns=(FigureColumn("as they are"), *(FigureColumn(kind) for kind in kinds)),
        rows=tuple(lines),
        options=dict(options),
    )


def _unchanged(row: Row, dataset: str) -> Cell:
    return mean_cell([100 * score for score in row.scores(dataset, METRIC)], _sources(row, dataset))


def _after(row: Row, dataset: str, kind: str) -> Cell:
    if not row.scores(dataset, METRIC):
        return MISSING
    values = [member.datasets[dataset].robustness.get(kind) for member in row.members]
    present = [100 * value for value in values if value is not None]
    return mean_cell(present, _sources(row, dataset)) if len(present) == len(values) else MISSING


def _sources(row: Row, dataset: str) -> list[str]:
    return [member.datasets[dataset].fingerprint for member in row.members if dataset in member.datasets]
