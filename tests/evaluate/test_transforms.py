"""Post-hoc transforms on clouds whose covariance is known."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate.transform_names import parse_transform
from ragcun_cli.evaluate.transforms import fitted, unit_length
from ragcun_cli.evaluate.vectors import PassageVectors


def cloud(count: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    return ((rng.standard_normal((count, 8)) * np.geomspace(3, 0.1, 8)) @ rotation + 5).astype(np.float32)


def transformed(name: str, values: np.ndarray, fit: np.ndarray | None = None) -> np.ndarray:
    passages = PassageVectors.of_array(values if fit is None else fit)
    return fitted(parse_transform(name), passages)(torch.from_numpy(values)).numpy()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_whitening_raises_eigenvalues_to_one_minus_alpha(alpha: float) -> None:
    values = cloud()
    out = transformed(f"whiten:{alpha}", values)
    before = np.linalg.eigvalsh(np.cov(values, rowvar=False))
    np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(out, rowvar=False)), before ** (1 - alpha), rtol=1e-3)
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-4)


def test_whitening_at_zero_only_centres() -> None:
    values = cloud()
    np.testing.assert_allclose(transformed("whiten:0", values), transformed("center", values), atol=2e-5)
    np.testing.assert_allclose(transformed("center", values), values - values.mean(axis=0), atol=1e-5)


def test_directions_that_passages_do_not_use_are_left_out() -> None:
    """Fewer passages than dimensions: full whitening must not blow up what is only noise."""
    values = np.random.default_rng(0).standard_normal((20, 64)).astype(np.float32)
    out = transformed("whiten:1", values)
    assert np.isfinite(out).all()
    assert np.linalg.matrix_rank(out, tol=1e-3) == 19


def test_a_transform_is_that_of_the_passages_it_is_fitted_on() -> None:
    values, other = cloud(), cloud()[:50] + 100
    np.testing.assert_allclose(transformed("center", other, fit=values), other - values.mean(axis=0), atol=1e-4)


def test_int8_has_256_steps_and_errs_by_half_a_step() -> None:
    values = cloud()
    out = transformed("int8", values)
    assert all(len(np.unique(out[:, column])) <= 256 for column in range(8))
    step = (values.max(axis=0) - values.min(axis=0)) / 255
    assert (np.abs(out - values) <= step * 0.51).all()
    beyond = transformed("int8", values * 0 + 1000, fit=values)
    np.testing.assert_allclose(beyond, np.broadcast_to(values.max(axis=0), beyond.shape), rtol=1e-5)
    constant = np.ones((3, 2), dtype=np.float32)
    np.testing.assert_array_equal(transformed("int8", constant), constant)


def test_binary_and_truncation() -> None:
    values = np.array([[0.5, -2, 0, 1]], dtype=np.float32)
    assert transformed("binary", values).tolist() == [[1, -1, -1, 1]]
    assert transformed("truncate:2", values).tolist() == [[0.5, -2]]
    assert transformed("none", values).tolist() == values.tolist()
    with pytest.raises(UsageError, match="the embeddings have 4 dimensions"):
        transformed("truncate:5", values)


@pytest.mark.parametrize("name", ["none", "center", "whiten:0.5", "int8", "binary", "truncate:3"])
def test_a_fitted_transform_can_be_sent_to_another_process(name: str) -> None:
    values = torch.from_numpy(cloud()[:10])
    fit = fitted(parse_transform(name), PassageVectors.of_array(cloud()))
    assert torch.equal(pickle.loads(pickle.dumps(fit))(values), fit(values))


@pytest.mark.parametrize("name", ["int8", "binary", "truncate:3", "center", "unit length"])
def test_what_is_applied_while_reading_does_not_depend_on_the_block(name: str) -> None:
    values = torch.from_numpy(cloud())
    fit = unit_length if name == "unit length" else fitted(parse_transform(name), PassageVectors.of_array(cloud()))
    whole = fit(values)
    for size in (1, 3, 64, 1000):
        assert torch.equal(torch.cat([fit(part) for part in values.split(size)]), whole)


def test_names() -> None:
    assert [parse_transform(name).name for name in ("whiten:0.50", "truncate:64", " center ")] == [
        "whiten:0.5", "truncate:64", "center",
    ]  # fmt: skip
    for wrong in ("whiten", "whiten:x", "whiten:-1", "truncate:0", "truncate:1.5", "center:1", "pca", ""):
        with pytest.raises(UsageError, match="there is no such transform"):
            parse_transform(wrong)


def test_int8_is_its_formula() -> None:
    values = cloud(100)
    least, greatest = values.min(axis=0), values.max(axis=0)
    step = (greatest - least) / np.float32(255)
    expected = np.clip(np.round((values - least) / step), 0, 255) * step + least
    np.testing.assert_allclose(transformed("int8", values), expected, rtol=1e-6)
    assert len(np.unique(transformed("int8", cloud(4000))[:, 0])) > 150
    below = transformed("int8", values * 0 - 1000, fit=values)
    np.testing.assert_allclose(below, np.broadcast_to(least, below.shape), rtol=1e-6)


def test_whitening_of_few_passages_takes_the_unbiased_covariance() -> None:
    values = cloud(40)
    out = transformed("whiten:1", values)
    np.testing.assert_allclose(np.cov(out, rowvar=False), np.eye(8), atol=2e-2)
    assert np.trace(np.cov(out, rowvar=False)) == pytest.approx(8, rel=1e-3)
    alone = transformed("whiten:1", values[:1])
    np.testing.assert_array_equal(alone, np.zeros((1, 8)))


def test_directions_left_out_come_out_as_zero() -> None:
    values = np.zeros((50, 3), dtype=np.float32)
    values[:, :2] = np.random.default_rng(0).standard_normal((50, 2))
    apart = values + np.array([0, 0, 7], dtype=np.float32)  # what no passage has
    np.testing.assert_allclose(transformed("whiten:1", apart, fit=values)[:, 2], 0, atol=1e-6)
    np.testing.assert_allclose(transformed("whiten:0.5", apart, fit=values)[:, 2], 0, atol=1e-6)


def test_the_ends_of_what_is_allowed() -> None:
    values = cloud(30)
    assert transformed("whiten:2", values).shape == (30, 8)
    assert transformed("truncate:1", values).shape == (30, 1)
    np.testing.assert_array_equal(transformed("truncate:8", values), values)
    with pytest.raises(UsageError, match="there is no such transform"):
        parse_transform("whiten:2.01")
    with pytest.raises(UsageError, match="the embeddings have 8 dimensions"):
        transformed("truncate:9", values)
    names = ("none", "center", "whiten:1", "int8", "binary", "truncate:3")
    assert [parse_transform(name).needs_fit for name in names] == [False, True, True, True, False, False]


def test_a_length_of_one() -> None:
    values = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert torch.allclose(unit_length(values), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
