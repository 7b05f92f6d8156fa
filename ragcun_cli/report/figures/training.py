"""Training curves: the terms of the loss, and the dev score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ragcun_cli.report.figures.style import GREY, Look, legend_below, panels
from ragcun_cli.report.runs import RecordedRun

TERMS = {"contrastive": "contrastive", "isotropy": "isotropy term", "variance": "(std - 1)²", "loss": "loss, weighted"}
NULL = "isotropy_null"
GEOMETRY = {"isoscore_positives": "IsoScore of a batch's positives"}


def draw_training(runs: dict[str, Sequence[RecordedRun]], looks: dict[str, Look]) -> Figure | None:
    """Draw a panel for each logged term and for dev nDCG@10; None if there are no curves, only single points.

    runs: row -> its seeds, each a thin line.
    """
    shown = [
        term
        for term in (*TERMS, *GEOMETRY)
        if has_curve([[line for line in run.metrics if line.get(term) is not None] for run in _all(runs)])
    ]
    has_dev = has_curve([run.scores for run in _all(runs)])
    if not shown and not has_dev:
        return None
    figure, axes = panels(len(shown) + has_dev)
    for term, each in zip(shown, axes, strict=False):
        each.set_title({**TERMS, **GEOMETRY}[term])
        each.set_xlabel("step")
        for name, members in runs.items():
            curves = [
                [(line["step"], line[term]) for line in run.metrics if line.get(term) is not None] for run in members
            ]
            _draw(each, curves, looks[name], name)
        if term == "isotropy":
            _draw_null(each, _all(runs))
    if has_dev:
        axes[-1].set_title("nDCG@10 x 100 on dev")
        axes[-1].set_xlabel("step")
        for name, members in runs.items():
            curves = [[(line["step"], 100 * line["dev"]["ndcg@10"]) for line in run.scores] for run in members]
            _draw(axes[-1], curves, looks[name], name, with_marker=True)
    legend_below(figure, axes)
    return figure


def has_curve(logged: Sequence[Sequence[object]]) -> bool:
    """Whether any run has two points; a panel with one point would say nothing."""
    return any(len(points) > 1 for points in logged)


def _all(runs: dict[str, Sequence[RecordedRun]]) -> list[RecordedRun]:
    return [run for members in runs.values() for run in members]


def _draw(
    axes: Axes, curves: Sequence[Sequence[tuple[int, float]]], look: Look, label: str, with_marker: bool = False
) -> None:
    """Draw each seed as a thin line, and their mean if all have the same steps."""
    curves = [curve for curve in curves if curve]
    if not curves:
        return
    marker = look.marker if with_marker else None
    steps = [[step for step, _ in curve] for curve in curves]
    several = len(curves) > 1 and all(each == steps[0] for each in steps)
    for number, curve in enumerate(curves):
        axes.plot(
            *zip(*curve, strict=True),
            color=look.colour, linestyle=look.line, linewidth=0.5 if several else 1.1, alpha=0.5 if several else 1,
            marker=None if several else marker, label=None if several or number else label,
        )  # fmt: skip
    if several:
        mean = np.mean([[value for _, value in curve] for curve in curves], axis=0)
        axes.plot(steps[0], mean, color=look.colour, linestyle=look.line, marker=marker, label=label)


def _draw_null(axes: Axes, runs: Sequence[RecordedRun]) -> None:
    """Draw the term's value on N(0, I), below which there is nothing to gain."""
    nulls = {round(line[NULL], 4) for run in runs for line in run.metrics if line.get(NULL) is not None}
    if nulls:
        axes.margins(y=0.1)
    for null in sorted(nulls):
        axes.axhline(null, color=GREY, linewidth=0.8, linestyle=":")
        axes.annotate(f"on N(0, I): {null:g}", (1, null), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                      fontsize=6, color=GREY)  # fmt: skip
