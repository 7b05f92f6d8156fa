"""The tests over queries: against exact enumeration and scipy, and uniform where there is no difference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from ragcun_cli.report.statistics.differences import Strata, standard_error
from ragcun_cli.report.statistics.paired import (
    DRAWS,
    FLIPS,
    bootstrap_interval,
    detectable_difference,
    effect_size,
    sign_flip_test,
    t_test,
)

RNG = np.random.default_rng


def exact(values: np.ndarray, strata: Strata) -> float:
    signs = np.array(list(itertools.product([1, -1], repeat=len(values))))
    means = signs @ (values * strata.shares())
    return float((np.abs(means) >= abs(strata.mean(values)) - 1e-12).mean())


@pytest.mark.parametrize("size", [1, 5, 8, 9, 13])
def test_sign_flips_come_near_to_all_of_them(size: int) -> None:
    values = RNG(size).normal(0.3, 1, size)
    strata = Strata.single(size)
    assert sign_flip_test(values, strata) == pytest.approx(exact(values, strata), abs=0.006)


def test_sign_flips_within_strata_of_different_weight() -> None:
    strata = Strata.equal([Strata.single(4), Strata.single(8)])
    values = RNG(3).normal(0.4, 1, 12)
    assert sign_flip_test(values, strata) == pytest.approx(exact(values, strata), abs=0.006)


def test_sign_flips_agree_with_scipy() -> None:
    values = RNG(4).normal(0.05, 0.3, 200)
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1)
    assert sign_flip_test(values, Strata.single(200)) == pytest.approx(theirs.pvalue, abs=0.02)


def test_sign_flips_are_the_same_each_time_and_never_zero() -> None:
    values = np.full(100, 0.5)
    first, second = (sign_flip_test(values, Strata.single(100)) for _ in range(2))
    assert first == second == 1 / 100_001


def test_no_difference_at_all() -> None:
    zeros = np.zeros(20)
    assert sign_flip_test(zeros, Strata.single(20)) == 1
    assert t_test(zeros, Strata.single(20)) == 1
    assert effect_size(zeros, Strata.single(20)) is None


def test_ties_with_the_seen_mean_count_whatever_the_order_of_the_sum() -> None:
    # 0.1 + 0.2 differs from 0.3 in the last digit: every draw's mean is the seen one or its opposite.
    values = np.array([0.1, 0.2, -0.3, 0.1, 0.2, -0.3, 0.3])
    strata = Strata.single(7)
    assert sign_flip_test(values, strata) == pytest.approx(exact(values, strata), abs=0.006)


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_p_values_are_uniform_where_there_is_no_difference(kind: str) -> None:
    generator = RNG(5)
    strata = Strata.single(40)
    p = []
    for case in range(400):
        one, other = generator.normal(size=(2, 40)) if kind == "normal" else generator.exponential(size=(2, 40))
        p.append(sign_flip_test(one - other, strata, flips=2000, seed=case))
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_the_t_test_is_scipys() -> None:
    one, other = RNG(6).normal(size=(2, 50))
    ours = t_test(one - other, Strata.single(50))
    assert ours == pytest.approx(stats.ttest_rel(one, other).pvalue, abs=1e-12)


def test_the_t_test_over_two_strata_is_welchs() -> None:
    one, other = RNG(7).normal(0.4, 1, 9), RNG(8).normal(0.1, 2, 30)
    # The mean of both strata is zero when one's mean is the other's with its sign turned.
    strata = Strata.equal([Strata.single(9), Strata.single(30)])
    ours = t_test(np.concatenate([one, other]), strata)
    assert ours == pytest.approx(stats.ttest_ind(one, -other, equal_var=False).pvalue, abs=1e-12)


def test_the_bootstrap_is_scipys_but_for_chance() -> None:
    values = RNG(9).normal(0.1, 1, 300)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    assert bootstrap_interval(values, Strata.single(300)) == pytest.approx(tuple(theirs), abs=0.008)


def test_the_bootstrap_draws_within_strata() -> None:
    # Each stratum is constant: within them nothing varies, whatever lies between.
    values = np.array([1.0] * 5 + [3.0] * 20)
    assert bootstrap_interval(values, Strata.equal([Strata.single(5), Strata.single(20)])) == (2.0, 2.0)


def test_a_difference_that_is_called_detectable_is_detected_8_times_in_10() -> None:
    generator = RNG(10)
    strata = Strata.single(60)
    error = standard_error(generator.normal(0, 1, 60), strata)
    found = detectable_difference(error.value, error.degrees, 0.05)
    scale = found / error.value
    hits = 0
    for _ in range(1000):
        values = generator.normal(0, 1, 60) + scale / np.sqrt(60)
        hits += t_test(values, strata) < 0.05
    assert 0.76 < hits / 1000 < 0.84


def test_effect_size() -> None:
    values = RNG(11).normal(0.5, 2, 400)
    assert effect_size(values, Strata.single(400)) == pytest.approx(values.mean() / values.std(ddof=1))


def test_shares_of_nested_strata() -> None:
    forums = Strata.equal([Strata.single(1), Strata.single(3)])
    strata = Strata.equal([Strata.single(2), forums])
    assert strata.shares().tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 4, 1 / 12, 1 / 12, 1 / 12])
    assert strata.mean(np.array([1.0, 1, 0, 4, 4, 4])) == pytest.approx(0.5 * 1 + 0.5 * (0.5 * 0 + 0.5 * 4))
    assert strata.smallest == 1


def test_the_bootstraps_ends_are_those_of_95_percent() -> None:
    values = RNG(12).normal(0, 1, 400)
    low, high = bootstrap_interval(values, Strata.single(400))
    half = stats.norm.ppf(0.975) * values.std() / 20
    assert (values.mean() - low, high - values.mean()) == pytest.approx((half, half), rel=0.05)


def test_what_is_detectable_by_hand() -> None:
    for significance in (0.05, 0.05 / 7):
        expected = (stats.t.ppf(1 - significance / 2, 30) + stats.t.ppf(0.8, 30)) * 0.02
        assert detectable_difference(0.02, 30, significance) == pytest.approx(expected, rel=1e-9)


def test_effect_size_over_strata_by_hand() -> None:
    one, other = RNG(13).normal(0.3, 1, 10), RNG(14).normal(0.1, 2, 30)
    strata = Strata.equal([Strata.single(10), Strata.single(30)])
    spread = np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2)
    expected = (one.mean() + other.mean()) / 2 / spread
    assert effect_size(np.concatenate([one, other]), strata) == pytest.approx(expected, rel=1e-9)


def test_the_standard_error_of_strata_by_hand() -> None:
    one, other = RNG(15).normal(size=9), RNG(16).normal(size=20)
    strata = Strata.equal([Strata.single(9), Strata.single(20)])
    variances = np.array([one.var(ddof=1) / 9, other.var(ddof=1) / 20]) / 4
    found = standard_error(np.concatenate([one, other]), strata)
    assert found.value == pytest.approx(np.sqrt(variances.sum()), rel=1e-12)
    assert found.degrees == pytest.approx(variances.sum() ** 2 / (variances[0] ** 2 / 8 + variances[1] ** 2 / 19))
    constant = standard_error(np.ones(29), strata)
    assert (constant.value, constant.degrees) == (0, np.inf)
    assert strata.smallest == 9
    assert strata.shares().sum() == pytest.approx(1)
    assert [len(part) for part in strata.split(np.zeros((2, 29)))] == [2, 2]


def test_an_answer_is_remembered_for_the_same_question_only() -> None:
    values = RNG(17).normal(0.1, 1, 30)
    strata = Strata.single(30)
    assert sign_flip_test(values, strata, flips=500) == sign_flip_test(values.copy(), strata, flips=500)
    assert sign_flip_test(values, strata, flips=500) != sign_flip_test(values, strata, flips=501)
    assert sign_flip_test(values, strata, flips=500, seed=1) != sign_flip_test(values, strata, flips=500, seed=2)


def test_differences_of_exactly_1_count_as_any_other() -> None:
    """A query that one system alone answers: of five such, 2 of the 32 patterns of signs are as far from 0."""
    assert sign_flip_test(np.ones(5), Strata.single(5)) == pytest.approx(2 / 32, abs=0.006)


def test_equal_differences_have_no_effect_size_whatever_their_size() -> None:
    """Their spread in floating point is not 0: rounding is measured by the largest of them."""
    large = np.full(7, 1e8 / 3)
    assert large.std(ddof=1) > 0
    assert effect_size(large, Strata.single(7)) is None
    small = np.array([1e-12, 2e-12, 4e-12])
    assert effect_size(small, Strata.single(3)) == pytest.approx(small.mean() / small.std(ddof=1))


def test_draws_are_as_many_as_the_documentation_says() -> None:
    assert (FLIPS, DRAWS) == (100_000, 10_000)
