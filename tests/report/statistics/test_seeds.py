"""Intervals over seeds and queries: they hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

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


def by_hand(first: np.ndarray, second: np.ndarray, paired: bool) -> tuple[float, float]:
    """Standard error and degrees of freedom of one stratum, written out."""
    queries = first.shape[1]
    differences = first.mean(axis=0) - second.mean(axis=0)
    variances, degrees = [differences.var(ddof=1) / queries], [queries - 1]
    samples = [(first - second).mean(axis=1)] if paired else [each.mean(axis=1) for each in (first, second)]
    for sample in samples:
        if len(sample) > 1:
            variances.append(sample.var(ddof=1) / len(sample))
            degrees.append(len(sample) - 1)
    error = np.sqrt(sum(variances))
    return error, sum(variances) ** 2 / sum(v**2 / d for v, d in zip(variances, degrees, strict=True))


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("paired", [True, False])
def test_error_and_degrees_by_hand(seeds: int, paired: bool) -> None:
    generator = RNG(seeds)
    shared = generator.normal(0, 0.5, (seeds, 1))  # what a seed does to both arms alike
    first, second = (shared + trained(generator, seeds, 0.02) for _ in range(2))
    found = seed_aware(first, second, Strata.single(80), paired)
    error, degrees = by_hand(first, second, paired)
    assert found is not None
    assert (found.error, found.degrees) == pytest.approx((error, degrees), rel=1e-9)
    half = stats.t.ppf(0.975, degrees) * error
    mean = first.mean() - second.mean()
    assert found.interval == pytest.approx((mean - half, mean + half), rel=1e-9)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / error, degrees), rel=1e-9)
    if paired:  # what both seeds share is no difference of the arms
        assert found.error < 0.5 * by_hand(first, second, False)[0]


def test_seeds_against_one_fixed_side_by_hand() -> None:
    generator = RNG(9)
    fixed, seeds = generator.normal(size=(1, 80)), trained(generator, 2, 0.02)
    for first, second in ((seeds, fixed), (fixed, seeds)):
        found = seed_aware(first, second, Strata.single(80), paired=False)
        assert found is not None
        assert (found.error, found.degrees) == pytest.approx(by_hand(first, second, False), rel=1e-9)


def test_where_nothing_varies() -> None:
    same = np.full((3, 10), 0.5)
    for paired in (True, False):
        equal, apart = (seed_aware(each, same, Strata.single(10), paired) for each in (same, same + 0.25))
        assert equal is not None
        assert apart is not None
        assert (equal.error, equal.p, equal.interval) == (0, 1.0, (0, 0))
        assert (apart.error, apart.p) == (0, 0.0)
        assert apart.interval == pytest.approx((0.25, 0.25))
