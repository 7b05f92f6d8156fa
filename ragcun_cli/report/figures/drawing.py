"""All figures of a set of results, and of those that cannot be drawn, why."""

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
from ragcun_cli.report.figures.clouds import Counts, Spectrum, draw_densities, draw_spectra
from ragcun_cli.report.figures.effects import Point, draw_forest, draw_queries, draw_tradeoff
from ragcun_cli.report.figures.style import MOST_PANELS, looks_of, styled
from ragcun_cli.report.figures.training import draw_training, has_curve
from ragcun_cli.report.material import Material
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
    """A figure that was left out."""

    name: str
    why: str


def draw_all(material: Material) -> tuple[list[Drawn], list[OmittedFigure]]:
    """In the order of a paper: what came of it, then why, then how it went.

    Raises:
        DataError: if a file of results cannot be read.
    """
    drawn: list[Drawn] = []
    left: list[OmittedFigure] = []
    for name, draw in _FIGURES.items():
        with styled():
            made = draw(material)
        if isinstance(made, str):
            left.append(OmittedFigure(name, made))
        else:
            drawn.append(Drawn(name, made[1] + _which_panels(name, material), made[0]))
    return drawn, left


def _which_panels(name: str, material: Material) -> str:
    shown = len([label for label, _ in _wheres(material) if label in material.datasets])
    others = len(material.datasets) - (shown if name == TRADEOFF else MOST_PANELS)
    return f" {others} more datasets are not shown; --datasets chooses." if others > 0 and name not in WHOLE else ""


Made = tuple[Figure, str] | str  # a figure and its caption, or why there is none


def _forest(material: Material) -> Made:
    if material.baseline is None:
        return no_baseline(material.every)
    if not material.comparisons:
        return "nothing is scored where the baseline is"
    label = metric_label(material.metric)
    figure = draw_forest(material.comparisons, material.baseline.name, label, looks_of(_names(material)))
    return figure, (
        f"Difference in {label} x 100 to {material.baseline.name}, with 95 % intervals: on datasets over queries, on "
        "averages over seeds and queries. The intervals are not corrected for their number; filled marks show a "
        "difference."
    )


def _tradeoff(material: Material) -> Made:
    places: dict[str, dict[str, Point]] = {}
    for label, datasets in _wheres(material):
        found = {row.name: place for row in material.rows if (place := _place(row, datasets, material.metric))}
        if found:
            places[label] = found
    if not places:
        return "no row has both scores and an IsoScore"
    if all(len(rows) < 2 for rows in places.values()):
        return "only one row has both scores and an IsoScore"
    label = metric_label(material.metric)
    weights, exponents = _paths(material.rows)
    drawn = {name for rows in places.values() for name in rows}
    figure = draw_tradeoff(places, [*weights, *exponents], label, looks_of(_names(material)))
    caption = f"IsoScore of the passages against {label} x 100. Large marks: means"
    if any(len(place.scores) > 1 for rows in places.values() for place in rows.values()):
        caption += "; small ones: seeds"
    joined = [
        what
        for what, paths in (
            ("arms that differ in the isotropy and variance terms alone, by lambda_isotropy", weights),
            ("a model's whitenings, by exponent", exponents),
        )
        if any(len(drawn.intersection(path)) > 1 for path in paths)
    ]
    left = [row.name for row in material.rows if row.name not in drawn]
    caption += f". Lines join {'; and '.join(joined)}." if joined else "."
    return figure, caption + (f" Not drawn, for lack of an IsoScore: {', '.join(left)}." if left else "")


def _queries(material: Material) -> Made:
    baseline = material.baseline
    if baseline is None:
        return no_baseline(material.every)
    rows, left = _readable(material)
    differences = {
        dataset: {
            row.name: differences_per_query(row, baseline, dataset, material.metric)[1]
            for row in rows
            if row is not baseline and row.scores(dataset, material.metric)
        }
        for dataset in _panels(material)
        if baseline.scores(dataset, material.metric)
    }
    differences = {dataset: rows for dataset, rows in differences.items() if rows}
    if not differences:
        return "nothing is scored where the baseline is"
    label = metric_label(material.metric)
    figure = draw_queries(differences, baseline.name, label, looks_of(_names(material)))
    return figure, (
        f"Difference in {label} to {baseline.name}, query by query, from the greatest loss to the greatest win; means "
        f"over seeds.{left}"
    )


def _spectra(material: Material) -> Made:
    spectra: dict[str, dict[str, Spectrum]] = {}
    rows, left = _readable(material)
    for dataset in _panels(material):
        found = {row.name: spectrum for row in rows if (spectrum := _spectrum(row, dataset))}
        if found:
            spectra[dataset] = found
    if not spectra:
        return "no eigenvalues were measured"
    return draw_spectra(spectra, looks_of(_names(material))), (
        "Eigenvalues of the passages' covariance, divided by their mean. Band: where those of as many draws of N(0, I) "
        f"lie (Marchenko-Pastur); none where the eigenvalues are means over forums.{left}"
    )


def _cosines(material: Material) -> Made:
    return _densities(
        _counts(material, COSINES, lambda counts: (counts.positives, counts.random)),
        material,
        "cosine of query and passage\n(solid: relevant, dotted: random)",
        "Cosine of a query with a passage relevant to it (solid) and with one drawn at random (dotted).",
    )


def _lengths(material: Material) -> Made:
    return _densities(
        _counts(material, LENGTHS, lambda counts: (counts.passages, counts.queries)),
        material,
        "length / root mean square of passages\n(solid: passages, dotted: queries)",
        "Lengths of the embeddings of passages (solid) and queries (dotted), divided by the root mean square over "
        "passages.",
    )


def _densities(counts: dict[str, dict[str, Counts]], material: Material, label: str, caption: str) -> Made:
    if not counts:
        return "no histograms were measured: evaluate again with this version of ragcun"
    return draw_densities(counts, label, looks_of(_names(material))), caption + _readable(material)[1]


def _training(material: Material) -> Made:
    runs: dict[str, Sequence[RecordedRun]] = {}
    for row in material.rows:
        found = [run for member in row.members if (run := find_run(member, material.runs)) is not None]
        if len(found) == len(row.members) and all(run.metrics for run in found):
            runs[row.name] = found
    if not runs:
        return f"no run folder with a metrics.jsonl is where its model was, or in {material.runs}"
    figure = draw_training(runs, looks_of(_names(material)))
    if figure is None:
        return "nothing was logged or scored more than once"
    every = [run for members in runs.values() for run in members]
    dev = ", and nDCG@10 on dev" if has_curve([run.scores for run in every]) else ""
    seeds = " Thin lines: seeds." if any(len(members) > 1 for members in runs.values()) else ""
    null = any("isotropy_null" in line for run in every for line in run.metrics)
    dotted = " Dotted: the isotropy term's value on N(0, I)." if null else ""
    return figure, f"Training: each term of the loss by itself{dev}.{seeds}{dotted}"


MOST_ROWS = 6  # curves over each other in one panel
TRADEOFF = "isotropy-and-score"
WHOLE = ("effects", "training")  # figures without a panel for each dataset
_FIGURES: dict[str, Callable[[Material], Made]] = {
    "effects": _forest,
    TRADEOFF: _tradeoff,
    "queries": _queries,
    "spectra": _spectra,
    "cosines": _cosines,
    "lengths": _lengths,
    "training": _training,
}


def _panels(material: Material) -> list[str]:
    """The datasets that have a panel of their own."""
    return list(material.datasets[:MOST_PANELS])


def _readable(material: Material) -> tuple[list[Row], str]:
    """The rows whose curves are drawn over each other, and what the caption says of the others.

    More than `MOST_ROWS` cannot be told apart: the baseline and arms as they were trained come first.
    """
    if len(material.rows) <= MOST_ROWS:
        return list(material.rows), ""
    ranked = sorted(material.rows, key=lambda row: (row is not material.baseline, not row.first.arm, _is_reduced(row)))
    chosen = {row.name for row in ranked[:MOST_ROWS]}
    left = [row.name for row in material.rows if row.name not in chosen]
    return [row for row in material.rows if row.name in chosen], f" Not drawn: {', '.join(left)} (--rows chooses)."


def _is_reduced(row: Row) -> bool:
    return not row.first.entry.is_plain


def _names(material: Material) -> list[str]:
    return [row.name for row in material.rows]


def _wheres(material: Material) -> list[tuple[str, Sequence[str]]]:
    averages = averages_over(material.datasets, named=False)
    wheres: list[tuple[str, Sequence[str]]] = [(average.label, average.datasets) for average in averages]
    return (wheres + [(name, (name,)) for name in material.datasets])[:MOST_PANELS]


def _place(row: Row, datasets: Sequence[str], metric: str) -> Point | None:
    scores, isoscores = [row.scores(name, metric) for name in datasets], [row.isoscores(name) for name in datasets]
    if not all(scores) or not all(isoscores):
        return None
    return Point(
        [float(np.mean(of_seed)) for of_seed in zip(*isoscores, strict=True)],
        [100 * float(np.mean(of_seed)) for of_seed in zip(*scores, strict=True)],
    )


def _paths(rows: Sequence[Row]) -> tuple[list[list[str]], list[list[str]]]:
    """Rows that differ in one thing, in its order: the isotropy term's weight, and the exponent of a whitening."""
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
        if not path.is_file() or not member.cloud(dataset, "passages"):
            return None
        values = read_spectrum(path).get(column(EIGENVALUES, "passages"))
        if values is None:
            raise DataError(f"{path}: has no eigenvalues of passages", "Evaluate again.")
        found.append(values)
    result = row.first.datasets.get(dataset)
    of_parts = result is not None and result.rules["average"] != PLAIN_MEAN
    return Spectrum(np.mean(found, axis=0), None if of_parts else int(row.first.cloud(dataset, "passages")["texts"]))


def _counts(
    material: Material, edges: Edges, of: Callable[[Histograms], tuple[Edges, Edges]]
) -> dict[str, dict[str, Counts]]:
    """of: which two of the counts are drawn."""
    counts: dict[str, dict[str, Counts]] = {}
    rows, _ = _readable(material)
    for dataset in _panels(material):
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
