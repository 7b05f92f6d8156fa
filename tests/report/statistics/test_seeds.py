"""Intervals over seeds and queries: they hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from ragcun_cli.report.statistics.differences import Strata
from ragcun_cli.report.statistics.seeds import seed_aware

RNG = np.random.default_rng


def trained(generator: np.random.Generator, seeds: int, between: float, queries: int = 80) -> np.ndarray:
    whole = generator.normal(0, between, (seeds, 1))
    return whole + generator.normal(0, 0.1, (1, queries)) + generator.normal(0, 0.1, (seeds, queries))


@pytest.mark.parametrize("between", [0.0, 0.03])
@pytest.mark.parametrize("paired", [True, False])
def test_95_percent_hold_the_truth(between: float, paired: bool) -> None:
    generator = RNG(1)
    strata = Strata.equal([Strata.single(30), Strata.single(50)])
    held = 0
    for _ in range(600):
        found = seed_aware(trained(generator, 3, between), trained(generator, 3, between), strata, paired)
        assert found is not None
        held += found.interval[0] <= 0 <= found.interval[1]
        assert (found.p < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])
    assert 0.92 < held / 600 < 0.98


def test_seeds_that_differ_widen_the_interval() -> None:
    generator = RNG(2)
    alike, apart = (
        seed_aware(trained(generator, 3, between), trained(generator, 3, between), Strata.single(80), False)
        for between in (0.0, 0.1)
    )
    assert alike is not None
    assert apart is not None
    assert apart.error > 3 * alike.error
    assert apart.degrees < 5 < alike.degrees


def test_a_single_seed_says_nothing() -> None:
    one = RNG(3).normal(size=(1, 20))
    assert seed_aware(one, one, Strata.single(20), paired=True) is None
    assert seed_aware(one, one, Strata.single(20), paired=False) is None


def test_an_untouched_encoder_has_no_seeds_to_vary() -> None:
    generator = RNG(4)
    fixed, seeds = generator.normal(size=(1, 80)), trained(generator, 3, 0.02)
    found = seed_aware(seeds, fixed, Strata.single(80), paired=False)
    assert found is not None
    assert found.interval[0] < (seeds.mean() - fixed.mean()) < found.interval[1]
