"""Plots of how arms differ: isotropy against score, effects with their intervals, and single queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from ragcun_cli.arrays import Figures
from ragcun_cli.report.comparison import Comparison
from ragcun_cli.report.figures.style import GREY, PAGE, Look, legend_below, panels


@dataclass(frozen=True)
class Point:
    """A row in the plane of isotropy and score: each seed, and their mean."""

    isoscores: Sequence[float]
    scores: Sequence[float]


def draw_tradeoff(
    places: dict[str, dict[str, Point]], paths: Sequence[Sequence[str]], metric: str, looks: dict[str, Look]
) -> Figure:
    """Draw IsoScore against nDCG. places: dataset or average -> row -> its point. paths: rows in the order of what was
    increased, such as lambda_isotropy or the exponent of a whitening.
    """
    figure, axes = panels(len(places))
    for (where, rows), each in zip(places.items(), axes, strict=True):
        each.set_title(where)
        each.set_xlabel("IsoScore of passages")
        each.set_ylabel(f"{metric} x 100")
        centres = {name: (np.mean(place.isoscores), np.mean(place.scores)) for name, place in rows.items()}
        for path in paths:
            there = [name for name in path if name in centres]
            if len(there) > 1:
                each.plot(*zip(*(centres[name] for name in there), strict=True), color=GREY, linewidth=0.7, zorder=1)
        for name, place in rows.items():
            look = looks[name]
            if len(place.scores) > 1:
                each.scatter(place.isoscores, place.scores, s=6, color=look.colour, alpha=0.5, linewidths=0, zorder=2)
            each.scatter(*centres[name], s=26, color=look.colour, marker=look.marker, label=name, zorder=3)
    legend_below(figure, axes)
    return figure


def draw_forest(comparisons: Sequence[Comparison], baseline: str, metric: str, looks: dict[str, Look]) -> Figure:
    """Draw the difference from the baseline on each dataset and on average, with 95 % intervals; filled where a
    difference is shown.
    """
    places = list(dict.fromkeys(each.where for each in comparisons))
    rows = list(dict.fromkeys(each.row for each in comparisons))
    height = 0.13 * len(places) * (len(rows) + 1) + 1.2
    figure = Figure(figsize=(PAGE, height))
    axes = figure.subplots()
    axes.axvline(0, color=GREY, linewidth=0.8)
    for each in comparisons:
        look = looks[each.row]
        y = places.index(each.where) * (len(rows) + 1) + rows.index(each.row)
        by_seeds = each.over_seeds.interval if each.is_average and each.over_seeds is not None else None
        interval = by_seeds or each.interval
        if interval is not None:
            axes.plot([100 * interval[0], 100 * interval[1]], [y, y], color=look.colour, linewidth=1)
        shown = each.verdict in ("better", "worse")
        axes.plot(
            100 * each.difference, y, marker=look.marker, color=look.colour, linestyle="none", markersize=4,
            markerfacecolor=look.colour if shown else "white",
        )  # fmt: skip
    for row in rows:  # only for the legend
        axes.plot([], [], marker=looks[row].marker, color=looks[row].colour, linewidth=1, label=row)
    centre = (len(rows) - 1) / 2
    axes.set_yticks([number * (len(rows) + 1) + centre for number in range(len(places))], places)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(
        f"{metric} x 100, difference from {baseline} (95 % interval, not corrected; filled: a difference is shown)"
    )
    legend_below(figure, [axes])
    return figure


def draw_queries(
    differences: dict[str, dict[str, Figures]], baseline: str, metric: str, looks: dict[str, Look]
) -> Figure:
    """Draw each query's difference from the baseline, from largest loss to largest win. differences: dataset -> row
    -> (queries,).
    """
    figure, axes = panels(len(differences))
    for (dataset, rows), each in zip(differences.items(), axes, strict=True):
        each.set_title(dataset)
        each.set_xlabel("share of queries")
        each.set_ylabel(f"{metric} - {baseline}")
        each.axhline(0, color=GREY, linewidth=0.6)
        for name, values in rows.items():
            ordered = np.sort(values)
            shares = (np.arange(len(ordered)) + 0.5) / len(ordered)
            label = f"{name}: {(values > 0).sum()} up, {(values < 0).sum()} down"
            each.plot(shares, ordered, color=looks[name].colour, linestyle=looks[name].line,
                      label=label if len(differences) == 1 else name)  # fmt: skip
    legend_below(figure, axes)
    return figure
