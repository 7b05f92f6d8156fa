"""Adjusted p-values, against their definitions and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from ragcun_cli.errors import UsageError
from ragcun_cli.report.statistics.corrections import corrected, require_correction


def test_holm_by_hand() -> None:
    assert corrected([0.01, 0.04, 0.03, 0.005], "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert corrected([0.9, 0.8], "holm") == [1.0, 1.0]


def test_holm_rejects_what_its_steps_reject() -> None:
    p = np.random.default_rng(1).random(40) ** 4
    adjusted = np.array(corrected(list(p), "holm"))
    order = np.argsort(p)
    rejected = 0
    while rejected < 40 and p[order[rejected]] <= 0.05 / (40 - rejected):
        rejected += 1
    assert set(np.flatnonzero(adjusted <= 0.05)) == set(order[:rejected])
    assert 0 < rejected < 40


def test_benjamini_hochberg_is_scipys() -> None:
    p = list(np.random.default_rng(2).random(40) ** 3)
    assert corrected(p, "bh") == pytest.approx(list(false_discovery_control(p, method="bh")))


def test_one_comparison_and_no_correction_stay_as_they_are() -> None:
    assert corrected([0.03], "holm") == [0.03]
    assert corrected([0.03, 0.02], "none") == [0.03, 0.02]
    assert corrected([], "holm") == []


def test_an_unknown_correction() -> None:
    with pytest.raises(UsageError, match="did you mean 'holm'"):
        require_correction("hol")
