"""IsoScore on clouds whose truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ragcun_cli.evaluate import isotropy
from ragcun_cli.evaluate.isotropy import measure_isotropy


def cloud(n: int, spectrum: np.ndarray, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((len(spectrum), len(spectrum))))[0]
    return ((rng.standard_normal((n, len(spectrum))) * np.sqrt(spectrum)) @ rotation + shift).astype(np.float32)


def true_isoscore(spectrum: np.ndarray) -> float:
    return float((spectrum.sum() ** 2 / (spectrum**2).sum() - 1) / (len(spectrum) - 1))


@pytest.mark.parametrize("n", [30, 60, 400])  # below and above the 64 dimensions: both Gram matrices
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_isoscore_is_unbiased_at_any_number_of_texts(n: int, decay: float) -> None:
    spectrum = np.arange(1, 65) ** -decay
    values = [measure_isotropy(cloud(n, spectrum, seed)).isoscore for seed in range(40)]
    assert np.mean(values) == pytest.approx(true_isoscore(spectrum), abs=0.03)


def test_the_plug_in_estimate_would_be_far_too_low() -> None:
    """What the unbiased one is for: at n = 60 a perfect Gaussian in 64 dimensions reads below 0.6."""
    values = cloud(60, np.ones(64), 0).astype(np.float64)
    assert true_isoscore(np.linalg.eigvalsh(np.cov(values, rowvar=False))) < 0.6


def test_it_does_not_change_with_scale_shift_or_rotation() -> None:
    values = cloud(200, np.geomspace(1, 0.1, 32), 0)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((32, 32)))[0].astype(np.float32)
    expected = measure_isotropy(values).isoscore
    for changed in (values * 7, values + 3, values @ rotation):
        assert measure_isotropy(changed).isoscore == pytest.approx(expected, rel=1e-4)


def test_the_mean_is_reported_apart() -> None:
    centred, shifted = measure_isotropy(cloud(500, np.ones(32), 0)), measure_isotropy(cloud(500, np.ones(32), 0, 3.0))
    assert centred.mean_cosine == pytest.approx(0, abs=0.02)
    assert shifted.mean_cosine > 0.8
    assert shifted.isoscore == pytest.approx(centred.isoscore, abs=1e-3)
    assert centred.standard_deviation == pytest.approx(1, abs=0.03)
    assert (centred.texts, centred.dimensions) == (500, 32)


def test_clouds_without_a_shape() -> None:
    collapsed = measure_isotropy(np.ones((10, 8), dtype=np.float32))
    assert collapsed.isoscore is None
    assert collapsed.standard_deviation == 0
    with_zero = np.zeros((10, 8), dtype=np.float32)
    assert measure_isotropy(with_zero).mean_cosine is None
    assert measure_isotropy(cloud(3, np.ones(8), 0)).isoscore is None


@pytest.mark.parametrize(("n", "dimensions"), [(4, 2), (5, 3), (7, 3), (12, 5)])
def test_isoscore_is_the_ratio_of_the_two_u_statistics(n: int, dimensions: int) -> None:
    """tr(S^2) and (tr S)^2 over all sets of four different texts, each pair of which is an unbiased covariance."""
    values = cloud(n, np.geomspace(1, 0.2, dimensions), n).astype(np.float64)
    of_square, square_of = [], []
    for i, j, k, m in itertools.permutations(range(n), 4):
        one, other = values[i] - values[j], values[k] - values[m]
        of_square.append((one @ other) ** 2 / 4)
        square_of.append((one @ one) * (other @ other) / 4)
    expected = (np.mean(square_of) / np.mean(of_square) - 1) / (dimensions - 1)
    assert measure_isotropy(values.astype(np.float32)).isoscore == pytest.approx(expected, rel=1e-4)


def test_standard_deviation_and_mean_cosine_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    values = cloud(9, np.array([2.0, 1.0, 0.5]), 3, shift=1.0).astype(np.float64)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[~np.eye(9, dtype=bool)]
    for block in (1, 4, 100):
        monkeypatch.setattr(isotropy, "BLOCK", block)
        found = measure_isotropy(values.astype(np.float32))
        assert found.standard_deviation == pytest.approx(np.sqrt(values.var(axis=0, ddof=1).mean()), rel=1e-5)
        assert found.mean_cosine == pytest.approx(cosines.mean(), rel=1e-5)
        assert found.isoscore is not None
    assert measure_isotropy(values[:4].astype(np.float32)).isoscore is not None
    assert measure_isotropy(values[:3].astype(np.float32)).isoscore is None
    assert measure_isotropy(values[:, :1].astype(np.float32)).isoscore is None
