"""Draw all figures of a set of results, and say why some cannot be drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ragcun_cli.errors import DataError
from ragcun_cli.report.averages import averages_over
from ragcun_cli.report.comparison import differences_per_query
from ragcun_cli.report.context import ReportContext
from ragcun_cli.report.figures.effects import Point, draw_forest, draw_queries, draw_tradeoff
from ragcun_cli.report.figures.embedding_stats import Counts, Spectrum, draw_densities, draw_spectra
from ragcun_cli.report.figures.style import MOST_PANELS, looks_of, styled
from ragcun_cli.report.figures.training import draw_training, has_curve
from ragcun_cli.report.rows import Row, no_baseline
from ragcun_cli.report.runs import RecordedRun, find_run
from ragcun_cli.report.table import metric_label
from ragcun_cli.results.histograms import COSINES, LENGTHS, Histograms, read_histograms
from ragcun_cli.results.layout import HISTOGRAMS_ENDING, PLAIN_MEAN, SPECTRUM_ENDING
from ragcun_cli.results.spectrum import EIGENVALUES, column, read_spectrum

Edges = npt.NDArray[Any]


@dataclass(frozen=True)
class Drawn:
    """A figure with its file's name and caption."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class OmittedFigure:
    """A figure that was left out, and why."""

    name: str
    why: str


def draw_all(context: ReportContext) -> tuple[list[Drawn], list[OmittedFigure]]:
    """Draw all figures in a paper's order: the results, then their explanation, then the training.

    Raises:
        DataError: if a file of results cannot be read.
    """
    drawn: list[Drawn] = []
    left: list[OmittedFigure] = []
    for name, draw in _FIGURES.items():
        with styled():
            made = draw(context)
        if isinstance(made, str):
            left.append(OmittedFigure(name, made))
        else:
            drawn.append(Drawn(name, made[1] + _which_panels(name, context), made[0]))
    return drawn, left


def _which_panels(name: str, context: ReportContext) -> str:
    shown = len([label for label, _ in _wheres(context) if label in context.datasets])
    others = len(context.datasets) - (shown if name == TRADEOFF else MOST_PANELS)
    return f" {others} more datasets are not shown; choose with --datasets." if others > 0 and name not in WHOLE else ""


Made = tuple[Figure, str] | str  # a figure and its caption, or why there is none


def _forest(context: ReportContext) -> Made:
    if context.baseline is None:
        return no_baseline(context.every)
    if not context.comparisons:
        return "nothing is scored where the baseline is"
    label = metric_label(context.metric)
    figure = draw_forest(context.comparisons, context.baseline.name, label, looks_of(_names(context)))
    return figure, (
        f"Difference in {label} x 100 from {context.baseline.name}, with 95 % intervals: on datasets over queries, on "
        "averages over seeds and queries. The intervals are not corrected for their number; filled marks show a "
        "difference."
    )


def _tradeoff(context: ReportContext) -> Made:
    places: dict[str, dict[str, Point]] = {}
    for label, datasets in _wheres(context):
        found = {row.name: place for row in context.rows if (place := _place(row, datasets, context.metric))}
        if found:
            places[label] = found
    if not places:
        return "no row has both scores and an IsoScore"
    if all(len(rows) < 2 for rows in places.values()):
        return "only one row has both scores and an IsoScore"
    label = metric_label(context.metric)
    weights, exponents = _paths(context.rows)
    drawn = {name for rows in places.values() for name in rows}
    figure = draw_tradeoff(places, [*weights, *exponents], label, looks_of(_names(context)))
    caption = f"IsoScore of the passages against {label} x 100. Large marks: means"
    if any(len(place.scores) > 1 for rows in places.values() for place in rows.values()):
        caption += "; small marks: single seeds"
    joined = [
        what
        for what, paths in (
            ("arms that differ only in the isotropy and variance terms, by lambda_isotropy", weights),
            ("whitenings of one model, by exponent", exponents),
        )
        if any(len(drawn.intersection(path)) > 1 for path in paths)
    ]
    left = [row.name for row in context.rows if row.name not in drawn]
    caption += f". Lines join {'; and '.join(joined)}." if joined else "."
    return figure, caption + (f" Not drawn because they have no IsoScore: {', '.join(left)}." if left else "")


def _queries(context: ReportContext) -> Made:
    baseline = context.baseline
    if baseline is None:
        return no_baseline(context.every)
    rows, left = _readable(context)
    differences = {
        dataset: {
            row.name: differences_per_query(row, baseline, dataset, context.metric)[1]
            for row in rows
            if row is not baseline and row.scores(dataset, context.metric)
        }
        for dataset in _panels(context)
        if baseline.scores(dataset, context.metric)
    }
    differences = {dataset: rows for dataset, rows in differences.items() if rows}
    if not differences:
        return "nothing is scored where the baseline is"
    label = metric_label(context.metric)
    figure = draw_queries(differences, baseline.name, label, looks_of(_names(context)))
    return figure, (
        f"Difference in {label} from {baseline.name}, query by query, from the largest loss to the largest win; means "
        f"over seeds.{left}"
    )


def _spectra(context: ReportContext) -> Made:
    spectra: dict[str, dict[str, Spectrum]] = {}
    rows, left = _readable(context)
    for dataset in _panels(context):
        found = {row.name: spectrum for row in rows if (spectrum := _spectrum(row, dataset))}
        if found:
            spectra[dataset] = found
    if not spectra:
        return "no eigenvalues were measured"
    return draw_spectra(spectra, looks_of(_names(context))), (
        "Eigenvalues of the passages' covariance, divided by their mean. Band: where those of as many N(0, I) draws "
        f"lie (Marchenko-Pastur); no band where the eigenvalues are means over forums.{left}"
    )


def _cosines(context: ReportContext) -> Made:
    return _densities(
        _counts(context, COSINES, lambda counts: (counts.positives, counts.random)),
        context,
        "cosine of query and passage\n(solid: relevant, dotted: random)",
        "Cosine of a query with a passage relevant to it (solid) and with one drawn at random (dotted).",
    )


def _lengths(context: ReportContext) -> Made:
    return _densities(
        _counts(context, LENGTHS, lambda counts: (counts.passages, counts.queries)),
        context,
        "length / root mean square of passages\n(solid: passages, dotted: queries)",
        "Lengths of the embeddings of passages (solid) and queries (dotted), divided by the root mean square over "
        "passages.",
    )


def _densities(counts: dict[str, dict[str, Counts]], context: ReportContext, label: str, caption: str) -> Made:
    if not counts:
        return "no histograms were measured: evaluate again with this version of ragcun"
    return draw_densities(counts, label, looks_of(_names(context))), caption + _readable(context)[1]


def _training(context: ReportContext) -> Made:
    runs: dict[str, Sequence[RecordedRun]] = {}
    for row in context.rows:
        found = [run for member in row.members if (run := find_run(member, context.runs)) is not None]
        if len(found) == len(row.members) and all(run.metrics for run in found):
            runs[row.name] = found
    if not runs:
        return f"found no run folder with a metrics.jsonl, neither where the model was nor in {context.runs}"
    figure = draw_training(runs, looks_of(_names(context)))
    if figure is None:
        return "nothing was logged or scored more than once"
    every = [run for members in runs.values() for run in members]
    dev = ", and nDCG@10 on dev" if has_curve([run.scores for run in every]) else ""
    seeds = " Thin lines: single seeds." if any(len(members) > 1 for members in runs.values()) else ""
    null = any("isotropy_null" in line for run in every for line in run.metrics)
    dotted = " Dotted: the isotropy term's value on N(0, I)." if null else ""
    return figure, f"Training: each term of the loss by itself{dev}.{seeds}{dotted}"


MOST_ROWS = 6  # curves drawn over each other in one panel
TRADEOFF = "isotropy-and-score"
WHOLE = ("effects", "training")  # figures without a panel for each dataset
_FIGURES: dict[str, Callable[[ReportContext], Made]] = {
    "effects": _forest,
    TRADEOFF: _tradeoff,
    "queries": _queries,
    "spectra": _spectra,
    "cosines": _cosines,
    "lengths": _lengths,
    "training": _training,
}


def _panels(context: ReportContext) -> list[str]:
    """The datasets that get their own panel."""
    return list(context.datasets[:MOST_PANELS])


def _readable(context: ReportContext) -> tuple[list[Row], str]:
    """The rows whose curves are drawn over each other, and what the caption says about the others.

    More than `MOST_ROWS` cannot be told apart: the baseline and arms as they were trained come first.
    """
    if len(context.rows) <= MOST_ROWS:
        return list(context.rows), ""
    ranked = sorted(context.rows, key=lambda row: (row is not context.baseline, not row.first.arm, _is_reduced(row)))
    chosen = {row.name for row in ranked[:MOST_ROWS]}
    left = [row.name for row in context.rows if row.name not in chosen]
    return [row for row in context.rows if row.name in chosen], f" Not drawn: {', '.join(left)} (choose with --rows)."


def _is_reduced(row: Row) -> bool:
    return not row.first.entry.is_plain


def _names(context: ReportContext) -> list[str]:
    return [row.name for row in context.rows]


def _wheres(context: ReportContext) -> list[tuple[str, Sequence[str]]]:
    averages = averages_over(context.datasets, named=False)
    wheres: list[tuple[str, Sequence[str]]] = [(average.label, average.datasets) for average in averages]
    return (wheres + [(name, (name,)) for name in context.datasets])[:MOST_PANELS]


def _place(row: Row, datasets: Sequence[str], metric: str) -> Point | None:
    scores, isoscores = [row.scores(name, metric) for name in datasets], [row.isoscores(name) for name in datasets]
    if not all(scores) or not all(isoscores):
        return None
    return Point(
        [float(np.mean(of_seed)) for of_seed in zip(*isoscores, strict=True)],
        [100 * float(np.mean(of_seed)) for of_seed in zip(*scores, strict=True)],
    )


def _paths(rows: Sequence[Row]) -> tuple[list[list[str]], list[list[str]]]:
    """Groups of rows that differ in one setting, sorted by it: the isotropy term's weight or a whitening's exponent."""
    by_weight: dict[object, list[tuple[float, str]]] = {}
    by_exponent: dict[object, list[tuple[float, str]]] = {}
    for row in rows:
        arm, entry = row.first.arm, row.first.entry
        plain = entry.transform == "none"
        if arm.get("recipe_but_terms") and plain:
            weight = 0.0 if arm["isotropy"] == "none" else float(arm["lambda_isotropy"])
            by_weight.setdefault((arm["recipe_but_terms"], entry.similarity), []).append((weight, row.name))
        exponent = 0.0 if plain else _exponent(str(entry.transform))
        if exponent is not None:
            weights = tuple(member.entry.identity for member in row.members)
            by_exponent.setdefault((weights, entry.similarity), []).append((exponent, row.name))
    return _named_in_order(by_weight), _named_in_order(by_exponent)


def _named_in_order(paths: dict[object, list[tuple[float, str]]]) -> list[list[str]]:
    return [[name for _, name in sorted(path)] for path in paths.values()]


def _exponent(transform: str) -> float | None:
    kind, _, amount = transform.partition(":")
    return float(amount) if kind == "whiten" else None


def _spectrum(row: Row, dataset: str) -> Spectrum | None:
    found = []
    for member in row.members:
        path = member.folder / f"{dataset}{SPECTRUM_ENDING}"
        if not path.is_file() or member.side(dataset, "passages") is None:
            return None
        values = read_spectrum(path).get(column(EIGENVALUES, "passages"))
        if values is None:
            raise DataError(f"{path}: has no eigenvalues of passages", "Evaluate again.")
        found.append(values)
    result = row.first.datasets.get(dataset)
    of_parts = result is not None and result.rules["average"] != PLAIN_MEAN
    side = row.first.side(dataset, "passages")
    return Spectrum(np.mean(found, axis=0), None if of_parts or side is None else side.texts)


def _counts(
    context: ReportContext, edges: Edges, of: Callable[[Histograms], tuple[Edges, Edges]]
) -> dict[str, dict[str, Counts]]:
    """Read the counts of all rows and datasets. of: picks the two that are drawn."""
    counts: dict[str, dict[str, Counts]] = {}
    rows, _ = _readable(context)
    for dataset in _panels(context):
        found = {row.name: each for row in rows if (each := _counts_of(row, dataset, edges, of))}
        if found:
            counts[dataset] = found
    return counts


def _counts_of(row: Row, dataset: str, edges: Edges, of: Callable[[Histograms], tuple[Edges, Edges]]) -> Counts | None:
    paths = [member.folder / f"{dataset}{HISTOGRAMS_ENDING}" for member in row.members]
    if not all(path.is_file() for path in paths):
        return None
    first, second = np.mean([of(read_histograms(path)) for path in paths], axis=0)
    return Counts(edges, first, second)
