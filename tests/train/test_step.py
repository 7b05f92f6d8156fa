"""The learning rate by optimiser steps."""

from __future__ import annotations

import itertools
import math

import pytest

from ragcun_cli.train.step import rate_factor


def test_it_warms_up_linearly_then_falls_as_a_cosine() -> None:
    factors = [rate_factor(step, warmup_steps=10, total_steps=110) for step in range(110)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == 1
    assert factors[60] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.001
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[10:]))


def test_a_run_shorter_than_its_warm_up() -> None:
    assert [rate_factor(step, 4, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert rate_factor(0, 0, 1) == 1


def test_the_factors_by_hand() -> None:
    assert [rate_factor(step, 4, 8) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    cosine = [0.5 * (1 + math.cos(math.pi * part / 4)) for part in range(4)]
    assert [rate_factor(step, 4, 8) for step in range(4, 8)] == pytest.approx(cosine)
    assert rate_factor(0, 0, 2) == 1
    assert rate_factor(1, 0, 2) == pytest.approx(0.5)
    assert rate_factor(3, 3, 3) == 1  # nothing is left after the warm-up
