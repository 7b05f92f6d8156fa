"""The isotropy terms: their null values, what they are blind to, and that each is what its paper defines."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import hyp1f1
from torch import Tensor

from ragcun_cli.losses import sigreg as sigreg_module
from ragcun_cli.losses.contrastive import own_squared_distances
from ragcun_cli.losses.covariance import covariance_to_identity, vicreg
from ragcun_cli.losses.isotropy import ISOTROPY_TERMS, View
from ragcun_cli.losses.sigreg import null_value, random_directions, sigreg
from ragcun_cli.losses.sigreg_exact import NULL_VALUE, _kernel, sigreg_exact
from ragcun_cli.losses.sphere import spread_out, uniformity
from ragcun_cli.recipe.schema import IsotropyKind, IsotropyOptions

D = 24


def cloud(count: int, seed: int = 0, dimensions: int = D) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def exact(embeddings: Tensor, debias: bool = False) -> Tensor:
    norms = embeddings.square().sum(1)
    return sigreg_exact(own_squared_distances(embeddings), norms, embeddings.shape[1], debias)


def value_of(kind: str, debias: bool, embeddings: Tensor) -> Tensor:
    """The term as a recipe's `isotropy` calls it, with what it says it needs and nothing else."""
    term = ISOTROPY_TERMS[kind]
    directions = random_directions(embeddings.shape[1], 2048, 0, 0).to(embeddings.dtype)
    view = View(
        embeddings,
        own_squared_distances(embeddings) if term.needs_distances else None,
        directions if term.needs_directions else None,
    )
    return term.value(view, IsotropyOptions(debias=debias))


# From the recipe's schema, so that a new term is under the tests of all terms from its first day.
KINDS = [kind for kind in get_args(IsotropyKind) if kind != "none"]
TERMS: dict[str, Callable[[Tensor], Tensor]] = {
    f"{kind}{', unbiased' * debias}": functools.partial(value_of, kind, debias)
    for kind in KINDS
    for debias in (False, True)
    if not debias or kind.startswith("sigreg")
}


def test_a_term_has_only_what_it_asks_for() -> None:
    """Distances cost a matrix product and directions a draw: a term that needs neither must not pay for them."""
    needs = {kind: (term.needs_distances, term.needs_directions) for kind, term in ISOTROPY_TERMS.items()}
    assert needs.keys() == set(KINDS)
    assert {kind for kind, (distances, _) in needs.items() if distances} == {"sigreg-exact"}
    assert {kind for kind, (_, directions) in needs.items() if directions} == {"sigreg"}


def direct_sigreg(embeddings: Tensor, directions: Tensor, points: int, t_max: float, debias: bool) -> float:
    """The definition, angle by angle in float64 (LeJEPA, Algorithm 1, on the half line)."""
    t = torch.linspace(0, t_max, points, dtype=torch.float64)
    normal = torch.exp(-t.square() / 2)
    weights = torch.full_like(t, 2 * t_max / (points - 1))
    weights[[0, -1]] /= 2
    angles = (embeddings.double() @ directions.double())[:, :, None] * t
    real, imaginary = angles.cos().mean(0), angles.sin().mean(0)
    count = len(embeddings)
    square = real.square() + imaginary.square()
    if debias:
        square = (count * square - 1) / (count - 1)
    distance = square - 2 * normal * real + normal.square()
    return float(count * (distance @ (weights * normal)).mean())


@pytest.mark.parametrize("debias", [False, True])
@pytest.mark.parametrize(("points", "t_max"), [(17, 3.0), (16, 5.0), (5, 1.0), (3, 2.0), (2, 1.0), (41, 4.0)])
def test_the_sliced_value_equals_the_direct_definition(points: int, t_max: float, debias: bool) -> None:
    for embeddings in (cloud(50), cloud(50) * 0.1 + 2, cloud(50) * 4):
        directions = random_directions(D, 200, seed=1, batch_number=2)
        expected = direct_sigreg(embeddings, directions, points, t_max, debias)
        assert sigreg(embeddings, directions, points, t_max, debias).item() == pytest.approx(
            expected, rel=1e-6, abs=3e-6
        )
        in_double = sigreg(embeddings.double(), directions.double(), points, t_max, debias)
        assert in_double.item() == pytest.approx(expected, rel=1e-11, abs=1e-12)


def test_chunks_of_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, directions = cloud(40).double().requires_grad_(), random_directions(D, 100, 0, 0).double()
    by_default = sigreg(embeddings, directions)
    assert by_default.item() == pytest.approx(direct_sigreg(embeddings.detach(), directions, 17, 3.0, False), rel=1e-5)
    (whole,) = torch.autograd.grad(by_default, embeddings)
    monkeypatch.setattr(sigreg_module, "CHUNK_ELEMENTS", {"cpu": 1})
    monkeypatch.setattr(sigreg_module, "FEWEST_SLICES", 7)
    (chunked,) = torch.autograd.grad(sigreg(embeddings, directions), embeddings)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-14)


def test_a_gpu_takes_all_slices_in_one_chunk() -> None:
    assert sigreg_module._chunks(1024, 2048, torch.device("cuda")) == [slice(0, 1024)]
    assert sigreg_module._chunks(300, 2048, torch.device("cpu")) == [slice(0, 128), slice(128, 256), slice(256, 300)]
    assert sigreg_module._chunks(300, 512, torch.device("cpu")) == [slice(0, 256), slice(256, 300)]


def test_the_exact_value_is_the_limit_of_many_slices_and_points() -> None:
    embeddings = cloud(30) * 1.2 + 0.1
    directions = random_directions(D, 100_000, 0, 0)
    many = sigreg(embeddings, directions, points=200, t_max=10)
    assert exact(embeddings).item() == pytest.approx(many.item(), rel=5e-3)
    assert exact(embeddings, debias=True).item() == pytest.approx(
        sigreg(embeddings, directions, 200, 10, debias=True).item(), rel=1e-2
    )


@pytest.mark.parametrize(("dimensions", "tolerance"), [(16, 5e-5), (64, 5e-7), (512, 2e-9)])
def test_the_exact_kernel_is_kummers_function(dimensions: int, tolerance: float) -> None:
    x = np.concatenate([[0.0], np.geomspace(1e-4, 50, 200)])
    expected = hyp1f1(0.5, dimensions / 2, -x * dimensions / 2)
    np.testing.assert_allclose(_kernel(torch.from_numpy(x), dimensions).numpy(), expected, rtol=tolerance)


@pytest.mark.parametrize("count", [16, 64, 512])
@pytest.mark.parametrize(("name", "expected"), [("sigreg", 1.0525), ("sigreg-exact", 1.0594)])
def test_the_null_value_holds_for_any_number_of_texts(name: str, expected: float, count: int) -> None:
    """Over 60 batches the mean is known to about 0.006."""
    values = [TERMS[name](cloud(count, seed, 64)).item() for seed in range(60)]
    assert np.mean(values) == pytest.approx(expected, abs=0.02)
    debiased = [TERMS[f"{name}, unbiased"](cloud(count, seed, 64)).item() for seed in range(60)]
    assert np.mean(debiased) == pytest.approx(0, abs=0.02)


def test_the_null_values_are_those_of_the_formulas() -> None:
    assert null_value() == pytest.approx(1.0525, abs=5e-5)
    assert pytest.approx(1.0594, abs=5e-5) == NULL_VALUE
    assert null_value(points=500, t_max=10) == pytest.approx(NULL_VALUE, abs=1e-6)


def test_the_covariance_term_is_unbiased() -> None:
    spectrum = torch.linspace(0.2, 2.0, D)
    truth = float((spectrum.square() - 1).square().mean())
    for count in (8, 64):
        values = [covariance_to_identity(cloud(count, seed) * spectrum).item() for seed in range(800)]
        assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / math.sqrt(len(values)))


def test_vicreg_equals_its_definition() -> None:
    embeddings = (cloud(20) * torch.linspace(0.3, 1.5, D)).double()
    covariance = torch.cov(embeddings.T)
    hinge = (1 - (covariance.diagonal() + 1e-4).sqrt()).clamp_min(0).mean()
    off_diagonal = covariance - torch.diag(covariance.diagonal())
    expected = hinge + off_diagonal.square().sum() / D / 25
    assert vicreg(embeddings).item() == pytest.approx(expected.item(), rel=1e-10)


def test_uniformity_and_gor_equal_their_definitions() -> None:
    units = torch.nn.functional.normalize(cloud(12).double() + 0.3, dim=1)
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j]
    cosines = np.array([float(units[i] @ units[j]) for i, j in pairs])
    expected = math.log(np.exp(-2 * (2 - 2 * cosines)).mean())
    assert uniformity(units * 3).item() == pytest.approx(expected, rel=1e-10)
    assert spread_out(units * 3).item() == pytest.approx(
        cosines.mean() ** 2 + max(0, (cosines**2).mean() - 1 / D), rel=1e-10
    )


@pytest.mark.parametrize("name", TERMS)
def test_the_order_of_texts_and_a_rotation_of_space_do_not_matter(name: str) -> None:
    embeddings = cloud(64).double() * 1.1 + 0.1
    value = TERMS[name](embeddings).item()
    assert TERMS[name](embeddings.flip(0)).item() == pytest.approx(value, rel=1e-9)
    rotated = embeddings @ torch.linalg.qr(cloud(D, 9).double()).Q
    # With finitely many slices only their mean is invariant; VICReg is defined coordinate by coordinate.
    tolerance = {"sigreg": 0.05, "sigreg, unbiased": 0.05, "vicreg": 0.2}.get(name, 1e-9)
    assert TERMS[name](rotated).item() == pytest.approx(value, rel=tolerance)


@pytest.mark.parametrize("name", TERMS)
def test_collapsed_embeddings_score_worse_than_gaussian_ones(name: str) -> None:
    gaussian = TERMS[name](cloud(128)).item()
    collapsed_to_a_line = cloud(128)[:, :1] * torch.nn.functional.normalize(torch.ones(1, D))
    for collapsed in (cloud(1).expand(128, -1) + 1e-3 * cloud(128, 1), collapsed_to_a_line):
        assert TERMS[name](collapsed).item() > gaussian + 0.1


@pytest.mark.parametrize("name", TERMS)
def test_gradients(name: str) -> None:
    embeddings = (cloud(6).double() * 0.8 + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(TERMS[name], (embeddings,))


@pytest.mark.parametrize("name", TERMS)
def test_equal_embeddings_have_a_finite_gradient(name: str) -> None:
    same = torch.ones(6, D, requires_grad=True)
    TERMS[name](same).backward()
    assert torch.isfinite(same.grad).all()
