"""The shape of the embeddings: eigenvalues, cosines and lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ragcun_cli.arrays import Figures
from ragcun_cli.report.figures.style import GREY, Look, legend_below, panels

MOST_FILLED = 3  # rows: more would hide each other


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the passages' covariance, largest first. texts: how many; None for a mean over parts. Several
    seeds are averaged.
    """

    eigenvalues: Figures
    texts: int | None


@dataclass(frozen=True)
class Counts:
    """Two kinds of counts over the bins between `edges`, averaged over seeds."""

    edges: Figures
    first: Figures
    second: Figures


def marchenko_pastur(dimensions: int, texts: int) -> tuple[float, float]:
    """The range of a N(0, I) sample's eigenvalues (Marchenko & Pastur 1967); 0 if there are fewer texts."""
    root = np.sqrt(dimensions / texts)
    return float(max(0.0, 1 - root) ** 2), float((1 + root) ** 2)


def draw_spectra(spectra: dict[str, dict[str, Spectrum]], looks: dict[str, Look]) -> Figure:
    """Draw spectra (dataset -> row -> spectrum). Eigenvalues are divided by their mean: 1 everywhere is isotropic."""
    figure, axes = panels(len(spectra))
    for (dataset, rows), each in zip(spectra.items(), axes, strict=True):
        each.set_title(dataset)
        each.set_xscale("log")
        each.set_yscale("log")
        each.set_xlabel("rank of the eigenvalue")
        each.set_ylabel("eigenvalue / mean")
        sizes = {(len(row.eigenvalues), row.texts) for row in rows.values() if row.texts is not None}
        for dimensions, texts in sorted(sizes):
            low, high = marchenko_pastur(dimensions, texts)
            each.axhspan(max(low, 1e-3), high, color=GREY, alpha=0.2, linewidth=0,
                         label=f"N(0, I), {texts} texts, {dimensions} dimensions" if len(spectra) == 1 else
                         "N(0, I), equally many texts")  # fmt: skip
        for name, row in rows.items():
            relative = row.eigenvalues / row.eigenvalues.mean()
            ranks = np.arange(1, len(relative) + 1)
            visible = relative > 1e-3  # values below this are rounding, from fewer texts than dimensions
            each.plot(
                ranks[visible], relative[visible], color=looks[name].colour, linestyle=looks[name].line, label=name
            )
    legend_below(figure, axes)
    return figure


def draw_densities(counts: dict[str, dict[str, Counts]], label: str, looks: dict[str, Look]) -> Figure:
    """Draw counts (dataset -> row -> the solid and the dotted curve). label: for the axis, saying which is which."""
    figure, axes = panels(len(counts))
    for (dataset, rows), each in zip(counts.items(), axes, strict=True):
        each.set_title(dataset)
        each.set_xlabel(label)
        _draw_densities(each, rows, looks)
    legend_below(figure, axes)
    return figure


def _draw_densities(axes: Axes, rows: dict[str, Counts], looks: dict[str, Look]) -> None:
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    filled = [each for row in rows.values() for each in (row.first, row.second)]
    used = np.flatnonzero(np.sum(filled, axis=0) > 0)
    edges = next(iter(rows.values())).edges
    if len(used):
        axes.set_xlim(edges[max(0, used[0] - 1)], edges[min(len(edges) - 1, used[-1] + 2)])
    for name, row in rows.items():
        look = looks[name]
        if len(rows) <= MOST_FILLED:
            axes.stairs(_density(row.first), row.edges, fill=True, alpha=0.18, color=look.colour)
        axes.stairs(_density(row.first), row.edges, color=look.colour, linewidth=1.1, label=name)
        axes.stairs(_density(row.second), row.edges, color=look.colour, linewidth=0.9, linestyle=":")


def _density(counts: Figures) -> Figures:
    return counts / max(float(counts.sum()), 1.0)
