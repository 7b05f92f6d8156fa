"""Correct p-values for multiple comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragcun_cli.errors import UsageError
from ragcun_cli.recipe.problems import did_you_mean

CORRECTIONS = {"holm": "Holm", "bh": "Benjamini-Hochberg", "none": "no correction"}


def require_correction(name: str) -> None:
    """Refuse an unknown correction.

    Raises:
        UsageError: if there is no such correction; it names the known ones.
    """
    if name not in CORRECTIONS:
        known = list(CORRECTIONS)
        raise UsageError(f"--correction {name}: there is no such correction; {did_you_mean(name, known)}")


def corrected(p_values: Sequence[float], method: str) -> list[float]:
    """Adjust p-values and return them in the given order.

    holm: keeps the chance of even one false "better" or "worse" below the level (Holm 1979). bh: keeps the share of
    false ones among them below it (Benjamini & Hochberg 1995).
    """
    p = np.asarray(p_values, dtype=np.float64)
    m = len(p)
    if method == "none" or m < 2:
        return [float(each) for each in p]
    order = np.argsort(p, kind="stable")
    ranks = np.arange(1, m + 1)
    if method == "holm":
        adjusted = np.maximum.accumulate(p[order] * (m - ranks + 1))
    else:
        adjusted = np.minimum.accumulate((p[order] * m / ranks)[::-1])[::-1]
    result = np.empty(m)
    result[order] = np.minimum(adjusted, 1)
    return [float(each) for each in result]
