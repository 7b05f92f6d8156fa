"""The geometry of clouds whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from ragcun_cli.evaluate.geometry import alignment, hubness, mean_stats, measure_stats, sampled_rows


def gaussian(count: int, spectrum: np.ndarray, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((count, len(spectrum))) * np.sqrt(spectrum)).astype(np.float32)


def true_isoscore(spectrum: np.ndarray) -> float:
    return float((spectrum.sum() ** 2 / (spectrum**2).sum() - 1) / (len(spectrum) - 1))


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_the_interval_covers_the_truth_nineteen_times_in_twenty(decay: float) -> None:
    spectrum = np.arange(1, 33) ** -decay
    clouds = [measure_stats(gaussian(600, spectrum, seed)) for seed in range(40)]
    inside = [low <= true_isoscore(spectrum) <= high for low, high in (each.interval for each in clouds)]
    assert sum(inside) >= 34
    assert all(each.interval[0] < each.isoscore < each.interval[1] for each in clouds)


def test_the_interval_narrows_with_the_number_of_texts() -> None:
    spectrum = np.geomspace(1, 0.1, 32)
    widths = [np.ptp(measure_stats(gaussian(count, spectrum, 0)).interval) for count in (500, 8000)]
    assert widths[1] < widths[0] / 2.5


def test_a_gaussian_has_no_excess_and_a_mixture_has() -> None:
    normal = gaussian(3000, np.ones(32), 0)
    assert measure_stats(normal * 7 + 3).epps_pulley_excess == pytest.approx(0, abs=0.002)
    signs = np.random.default_rng(0).choice([-1, 1], size=(3000, 1))
    mixture = (normal + 3 * signs).astype(np.float32)
    assert measure_stats(mixture).epps_pulley_excess > 0.02


def test_spread_rank_and_uniformity() -> None:
    spectrum = np.geomspace(4, 0.25, 16)
    cloud = measure_stats(gaussian(5000, spectrum, 1))
    np.testing.assert_allclose(cloud.eigenvalues, spectrum, rtol=0.1)
    assert cloud.standard_deviation == pytest.approx(np.sqrt(spectrum.mean()), rel=0.02)
    np.testing.assert_allclose(cloud.deviations, np.sqrt(spectrum), rtol=0.05)
    assert cloud.figures().least_deviation == pytest.approx(0.5, rel=0.05)
    shares = np.sqrt(spectrum) / np.sqrt(spectrum).sum()
    assert cloud.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=0.01)
    assert cloud.effective_rank_texts == 1000
    values = gaussian(300, np.ones(64), 2)
    directions = values / np.linalg.norm(values, axis=1, keepdims=True)
    squared = ((directions[:, None] - directions[None]) ** 2).sum(-1)[np.triu_indices(300, 1)]
    assert measure_stats(values).uniformity == pytest.approx(np.log(np.exp(-2 * squared).mean()), abs=1e-4)


def test_clouds_without_a_shape() -> None:
    collapsed = measure_stats(np.ones((10, 8), dtype=np.float32))
    assert (collapsed.isoscore, collapsed.interval, collapsed.epps_pulley_excess) == (None, None, None)
    assert collapsed.effective_rank is None
    assert measure_stats(gaussian(31, np.ones(4), 0)).interval is None


def test_alignment_is_of_directions() -> None:
    queries = np.array([[1, 0], [0, 2]], dtype=np.float32)
    relevant = np.array([[5, 0], [3, 0]], dtype=np.float32)
    assert alignment(queries, relevant) == pytest.approx((0 + 2) / 2)
    assert alignment(queries[:0], relevant[:0]) is None


def test_hubness_is_the_skewness_of_how_often_a_passage_is_found() -> None:
    from scipy.stats import skew

    nearest = np.array([[0, 1, 2], [0, 3, -1], [0, 1, 4]])
    assert hubness(nearest, 6) == pytest.approx(skew(np.array([3, 2, 1, 1, 1, 0])))
    assert hubness(np.array([[0], [1]]), 2) is None


def test_a_sample_of_many_passages_is_always_the_same() -> None:
    assert sampled_rows(5).tolist() == [0, 1, 2, 3, 4]
    rows = sampled_rows(300_000)
    assert len(np.unique(rows)) == 50_000
    np.testing.assert_array_equal(rows, sampled_rows(300_000))


def test_of_several_parts_the_mean() -> None:
    one, other = (measure_stats(gaussian(count, np.ones(8), count)) for count in (50, 80))
    both = mean_stats([one, other])
    assert both.texts == 130
    assert both.isoscore == pytest.approx((one.isoscore + other.isoscore) / 2)
    assert one.interval is not None
    assert other.interval is not None
    assert both.interval is not None
    widths = [each[1] - each[0] for each in (one.interval, other.interval, both.interval)]
    assert both.interval[0] < both.isoscore < both.interval[1]
    # Errors of texts that are not the same partly cancel.
    assert max(widths[:2]) / 2 < widths[2] < sum(widths[:2]) / 2
    assert mean_stats([one]) is one
