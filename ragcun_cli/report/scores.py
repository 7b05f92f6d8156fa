"""The main table: rows by datasets, their averages, isotropy, and marks where a row differs from the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ragcun_cli.data.registry import ALL, BEIR, GROUPS, IN_DOMAIN
from ragcun_cli.errors import UsageError
from ragcun_cli.recipe.problems import did_you_mean
from ragcun_cli.report.averages import PUBLISHED, Average, averages_over
from ragcun_cli.report.comparison import Comparison, ComparisonSettings, Shown, compare
from ragcun_cli.report.rows import Row
from ragcun_cli.report.score_notes import score_caption, score_notes
from ragcun_cli.report.table import (
    BETTER,
    ISOSCORE_DIGITS,
    MISSING,
    SCORE_DIGITS,
    WORSE,
    Cell,
    FigureColumn,
    ResultTable,
    TableRow,
    mean_cell,
    ranked,
)

PAPER_DATASETS = ("msmarco", "scifact", "fiqa")
PAPER_NAMES = {"msmarco": "MS MARCO", "scifact": "SciFact", "fiqa": "FiQA"}


@dataclass(frozen=True)
class ScoreColumns:
    """What a table shows, in order: labels of datasets and averages, and the datasets isotropy is averaged over."""

    heads: tuple[tuple[str, str | Average], ...]
    isotropy_over: tuple[str, ...]
    isotropy_label: str

    @property
    def datasets(self) -> list[str]:
        """All datasets that any figure covers."""
        named: list[str] = []
        for _, head in self.heads:
            named += [head] if isinstance(head, str) else head.datasets
        return list(dict.fromkeys([*named, *self.isotropy_over]))

    @property
    def averages(self) -> list[Average]:
        """The averages among the columns."""
        return [head for _, head in self.heads if isinstance(head, Average)]


def known_datasets(rows: Sequence[Row]) -> list[str]:
    """All datasets that any row was scored on: BEIR's in the order of its paper, then others by name."""
    known = {dataset for row in rows for member in row.members for dataset in member.datasets}
    return [name for name in ALL if name in known] + sorted(known - set(ALL))


def require_metric(rows: Sequence[Row], metric: str) -> None:
    """Refuse a metric that no result has.

    Raises:
        UsageError: if some result lacks the metric.
    """
    found = [set(result.metrics) for row in rows for member in row.members for result in member.datasets.values()]
    if not found:
        raise UsageError(
            "these results have no scores", "--preset geometry shows what was measured; ragcun eval beir scores models."
        )
    known = sorted(set.intersection(*found))
    if metric not in known:
        raise UsageError(f"--metric {metric}: the results have no such metric; {did_you_mean(metric, known)}")


def choose_datasets(rows: Sequence[Row], named: Sequence[str]) -> list[str]:
    """The datasets named, or all. A group's name stands for those of its sets that were scored.

    Raises:
        UsageError: if there is no result for one.
    """
    known = known_datasets(rows)
    named = [each for name in named for each in _members(name, known)]
    for dataset in named:
        if dataset not in known:
            raise UsageError(f"--datasets {dataset}: there is no result for it; {did_you_mean(dataset, known)}")
    return list(dict.fromkeys(named)) or known


def _members(name: str, known: Sequence[str]) -> list[str]:
    return [member for member in GROUPS.get(name, ()) if member in known] or [name]


def plain_columns(rows: Sequence[Row], named: Sequence[str]) -> ScoreColumns:
    """Every dataset, then the averages over complete sets."""
    datasets = choose_datasets(rows, named)
    averages = averages_over(datasets, named=bool(named))
    heads: list[tuple[str, str | Average]] = [(name, name) for name in datasets]
    heads += [(average.short, average) for average in averages]
    label = "IsoScore" if len(datasets) == 1 else f"IsoScore, {len(datasets)} sets"
    return ScoreColumns(tuple(heads), tuple(datasets), label)


def paper_columns(rows: Sequence[Row]) -> ScoreColumns:
    """Average, MS MARCO, SciFact, FiQA, isotropy: the columns of the earlier guide's table.

    Its average is over BEIR's 18 sets if all are scored, else over the 14 public ones; a row that lacks any has none.

    Raises:
        UsageError: if none of them is scored.
    """
    known = set(known_datasets(rows))
    if not known & set(BEIR) and IN_DOMAIN not in known:
        raise UsageError(
            "--preset paper: none of its datasets (BEIR's and MS MARCO) is scored",
            f"There are results on {', '.join(sorted(known))}: leave the preset out, or score BEIR's sets.",
        )
    average = next((each for each in PUBLISHED[:2] if set(each.datasets) <= known), PUBLISHED[0])
    complete = set(average.datasets) <= known
    singles = [name for name in PAPER_DATASETS if name in known]
    heads: list[tuple[str, str | Average]] = [(average.short, average)]
    heads += [(PAPER_NAMES[name], name) for name in PAPER_DATASETS]
    over = average.datasets if complete else tuple(singles)
    return ScoreColumns(tuple(heads), over, "Isotropy")


def build_scores(
    rows: Sequence[Row],
    columns: ScoreColumns,
    settings: ComparisonSettings,
    baseline: Row | None,
    options: Mapping[str, object],
    every: Sequence[Row] = (),
) -> ResultTable:
    """Build the table of one metric x 100 and the passages' IsoScore. A missing figure stays missing.

    every: all rows of the results, over which p-values are corrected; by default those shown.

    Raises:
        UsageError: if no result has the metric.
        DataError: as raised by `compare`.
    """
    every = every or rows
    require_metric([*every, *rows], settings.metric)
    comparisons: list[Comparison] = []
    if baseline is not None:
        singles = tuple(head for _, head in columns.heads if isinstance(head, str))
        shown = Shown(tuple(row.name for row in rows), singles, tuple(columns.averages))
        comparisons = compare(every, baseline, known_datasets(every), shown, settings, intervals=False)
    marks = {(each.row, each.where): each for each in comparisons}
    built: list[list[Cell]] = []
    for _, head in columns.heads:
        where = head if isinstance(head, str) else head.label
        cells = [_marked(_score(row, head, settings.metric), marks.get((row.name, where))) for row in rows]
        built.append(ranked(cells, SCORE_DIGITS))
    built.append([_isoscore(row, columns.isotropy_over) for row in rows])
    labels = [FigureColumn(label) for label, _ in columns.heads] + [
        FigureColumn(columns.isotropy_label, ISOSCORE_DIGITS)
    ]
    return ResultTable(
        caption=score_caption(rows, columns.averages, columns.isotropy_over, columns.isotropy_label, settings.metric),
        notes=tuple(score_notes(rows, columns.datasets, columns.averages, settings, baseline, comparisons, every)),
        marks=_marks_sentence(built),
        stubs=("model",),
        columns=tuple(labels),
        rows=tuple(
            TableRow((row.label,), tuple(cells)) for row, cells in zip(rows, zip(*built, strict=True), strict=True)
        ),
        options=dict(options),
        compared_with=() if baseline is None else tuple(_sources(baseline, columns.datasets)),
    )


def _score(row: Row, head: str | Average, metric: str) -> Cell:
    datasets = [head] if isinstance(head, str) else list(head.datasets)
    scores = [row.scores(dataset, metric) for dataset in datasets]
    if not all(scores):
        return MISSING
    by_seed = [100 * sum(of_seed) / len(of_seed) for of_seed in zip(*scores, strict=True)]
    return mean_cell(by_seed, _sources(row, datasets))


def _isoscore(row: Row, datasets: Sequence[str]) -> Cell:
    scores = [row.isoscores(dataset) for dataset in datasets]
    if not scores or not all(scores):
        return MISSING
    return mean_cell([sum(of_seed) / len(of_seed) for of_seed in zip(*scores, strict=True)], _sources(row, datasets))


def _sources(row: Row, datasets: Sequence[str]) -> list[str]:
    return [
        member.datasets[dataset].fingerprint
        for dataset in datasets
        for member in row.members
        if dataset in member.datasets
    ]


def _marked(cell: Cell, comparison: Comparison | None) -> Cell:
    if comparison is None or comparison.verdict not in ("better", "worse"):
        return cell
    return replace(cell, mark=BETTER if comparison.verdict == "better" else WORSE)


def _marks_sentence(columns: Sequence[Sequence[Cell]]) -> str:
    cells = [cell for column in columns for cell in column]
    return "Best in bold, second best underlined, by printed figure." if any(cell.best for cell in cells) else ""
