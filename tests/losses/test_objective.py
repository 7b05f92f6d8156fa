"""The losses against float64 written out, and the properties they are used for."""

from __future__ import annotations

import dataclasses
import math
from typing import get_args

import numpy as np
import pytest
import torch

from ragcun_cli.losses.contrastive import (
    equal_to_own_positive,
    infonce,
    own_squared_distances,
    squared_distances,
    triplet,
)
from ragcun_cli.losses.objective import Objective, TripleEmbeddings, standard_deviation, variance_penalty
from ragcun_cli.losses.sigreg import random_directions
from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.recipe.schema import IsotropyKind, Recipe

D = 24
WEIGHTS = torch.arange(5.0)[:, None] * torch.arange(5.0)[None, :] + 1  # of pairs, symmetric


def embeddings(count: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed)) * scale + shift


def batch(count: int = 6, shift: float = 0.0) -> TripleEmbeddings:
    """Every second query has a hard negative."""
    owners = torch.arange(0, count, 2)
    return TripleEmbeddings(
        embeddings(count, 1, 1.1, shift),
        embeddings(count, 2, 0.9, shift),
        embeddings(len(owners), 3),
        owners,
        positive_ids=torch.arange(count),
        negative_ids=count + torch.arange(len(owners)),
    )


def recipe(**values: object) -> Recipe:
    overrides = [f"{key}={str(value).lower()}" for key, value in values.items()]
    return load_recipe("demo-isotropy", overrides)


def reference_infonce(queries: np.ndarray, candidates: np.ndarray, temperature: float) -> float:
    losses = []
    for row, query in enumerate(queries):
        logits = [-sum((query - candidate) ** 2) / (2 * len(query) * temperature) for candidate in candidates]
        highest = max(logits)
        losses.append(highest + math.log(sum(math.exp(logit - highest) for logit in logits)) - logits[row])
    return float(np.mean(losses))


def reference_epps_pulley(sample: np.ndarray, points: int, t_max: float) -> float:
    """Of one projection: N times the weighted squared distance of the characteristic functions, both half lines."""
    t = np.linspace(-t_max, t_max, 2 * points - 1)
    empirical = np.exp(1j * np.outer(t, sample)).mean(axis=1)
    normal = np.exp(-(t**2) / 2)
    integrand = normal * np.abs(empirical - normal) ** 2
    step = t[1] - t[0]
    return float(len(sample) * step * (integrand.sum() - (integrand[0] + integrand[-1]) / 2))


def reference_objective(terms: TripleEmbeddings, arm: Recipe, number: int) -> dict[str, float]:
    queries, positives, negatives = (
        part.double().numpy() for part in (terms.queries, terms.positives, terms.negatives)
    )
    contrastive = reference_infonce(queries, np.concatenate([positives, negatives]), arm.temperature)
    options = arm.isotropy_options
    directions = random_directions(D, options.slices, arm.seed, number).double().numpy()
    isotropy = float(
        np.mean(
            [
                reference_epps_pulley(view @ direction, options.points, options.t_max)
                for view in (queries, positives)
                for direction in directions.T
            ]
        )
    )
    variance = float(np.mean([(np.sqrt(view.var(axis=0, ddof=1).mean()) - 1) ** 2 for view in (queries, positives)]))
    loss = contrastive + arm.lambda_isotropy * isotropy + arm.lambda_reg * variance
    return {"loss": loss, "contrastive": contrastive, "isotropy": isotropy, "variance": variance}


@pytest.mark.parametrize("shift", [0.0, 5.0])
@pytest.mark.parametrize("lambda_isotropy", [1, 0.3])
def test_the_objective_equals_its_float64_reference(shift: float, lambda_isotropy: float) -> None:
    arm, terms = recipe(lambda_isotropy=lambda_isotropy, lambda_reg=0.1), batch(shift=shift)
    computed = Objective(arm)(terms, batch_number=7)
    for name, expected in reference_objective(terms, arm, number=7).items():
        assert getattr(computed, name).item() == pytest.approx(expected, rel=1e-5, abs=1e-6), name


def test_the_triplet_objective_equals_its_float64_reference() -> None:
    arm, terms = recipe(lambda_isotropy=0, lambda_reg=0, contrastive="triplet", triplet_margin=0.4), batch()
    owners = terms.negative_owners.numpy()
    queries, positives = (part.double().numpy()[owners] for part in (terms.queries, terms.positives))
    nearer = ((queries - positives) ** 2).sum(axis=1) / (2 * D)
    farther = ((queries - terms.negatives.double().numpy()) ** 2).sum(axis=1) / (2 * D)
    expected = np.maximum(0, nearer - farther + 0.4).mean()
    assert expected > 0
    assert Objective(arm)(terms, batch_number=0).loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_weight_of_zero_leaves_the_term_out() -> None:
    terms = Objective(recipe(lambda_isotropy=0, lambda_reg=0))(batch(), batch_number=0)
    assert terms.isotropy is None
    assert terms.variance is None
    assert terms.loss is terms.contrastive


def test_statistics_are_float32_whatever_the_autocast() -> None:
    arm, terms = recipe(), batch(shift=5.0)
    outside = Objective(arm)(terms, batch_number=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = Objective(arm)(terms, batch_number=0)
    assert inside.loss.dtype == torch.float32
    assert inside.loss.item() == outside.loss.item()


def test_half_precision_embeddings_are_raised_to_float32() -> None:
    terms = batch()
    half = dataclasses.replace(
        terms,
        queries=terms.queries.bfloat16(),
        positives=terms.positives.bfloat16(),
        negatives=terms.negatives.bfloat16(),
    )
    assert Objective(recipe())(half, batch_number=0).loss.dtype == torch.float32


def test_turning_sigreg_on_takes_no_random_number_from_others() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Objective(recipe())(batch(), batch_number=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_directions_are_unit_and_new_at_each_step_and_seed() -> None:
    directions = random_directions(D, 32, seed=0, batch_number=0)
    assert torch.allclose(directions.norm(dim=0), torch.ones(32))
    assert torch.equal(directions, random_directions(D, 32, seed=0, batch_number=0))
    assert not torch.equal(directions, random_directions(D, 32, seed=0, batch_number=1))
    assert not torch.equal(directions, random_directions(D, 32, seed=1, batch_number=0))


@pytest.mark.parametrize("name", ["infonce", "own distances", "triplet", "variance"])
def test_gradients(name: str) -> None:
    queries, positives, negatives = (embeddings(5, seed).double().requires_grad_() for seed in (1, 2, 3))
    losses = {
        "infonce": lambda q, p, n: infonce(squared_distances(q, torch.cat([p, n])), D, 0.7),
        "own distances": lambda q, p, n: (own_squared_distances(q) * WEIGHTS).sum() + 0 * (p.sum() + n.sum()),
        "triplet": lambda q, p, n: triplet(q, p, n, 5.0),
        "variance": lambda q, p, n: variance_penalty(q) + variance_penalty(p) + 0 * n.sum(),
    }
    assert torch.autograd.gradcheck(losses[name], (queries, positives, negatives))


def test_distances_survive_a_large_common_mean() -> None:
    left, right = embeddings(8, 1, shift=200.0), embeddings(9, 2, shift=200.0)
    expected = ((left[:, None].double() - right[None].double()) ** 2).sum(-1)
    assert torch.allclose(squared_distances(left, right).double(), expected, rtol=1e-5, atol=1e-4)
    among = ((left[:, None].double() - left[None].double()) ** 2).sum(-1)
    assert torch.allclose(own_squared_distances(left).double(), among, rtol=1e-5, atol=1e-4)


def test_the_gradient_at_equal_embeddings_is_finite() -> None:
    same = torch.ones(4, D, requires_grad=True)
    loss = infonce(squared_distances(same, same), D, 0.05) + variance_penalty(same)
    loss.backward()
    assert torch.isfinite(same.grad).all()


def test_a_learned_temperature_is_a_parameter_and_has_a_floor() -> None:
    fixed, learned = Objective(recipe()), Objective(recipe(learn_temperature=True))
    assert not any(parameter.requires_grad for parameter in fixed.parameters())
    learned(batch(), batch_number=0).loss.backward()
    assert learned.log_temperature.grad is not None
    assert learned.temperature.item() == pytest.approx(0.05)
    with torch.no_grad():
        learned.log_temperature.fill_(-50.0)
    learned.keep_temperature_in_range()
    assert learned.temperature.item() == pytest.approx(0.01)
    learned.zero_grad()
    learned(batch(), batch_number=0).loss.backward()
    assert learned.log_temperature.grad.item() != 0  # at the floor it can still climb back


def test_the_standard_deviation_is_the_same_in_every_rotation() -> None:
    cloud = embeddings(40, 0) * torch.linspace(0.1, 2, D)
    rotation = torch.linalg.qr(embeddings(D, 9)).Q
    assert standard_deviation(cloud @ rotation).item() == pytest.approx(standard_deviation(cloud).item(), rel=1e-5)
    assert standard_deviation(embeddings(4000, 0)).item() == pytest.approx(1, abs=0.01)


def test_passages_equal_to_a_querys_own_positive_are_no_negatives() -> None:
    """Query 0's positive is also query 2's, and query 1's positive is also a hard negative of query 0."""
    terms = dataclasses.replace(batch(4), positive_ids=torch.tensor([7, 8, 7, 9]), negative_ids=torch.tensor([8, 5]))
    masked = equal_to_own_positive(terms.positive_ids, torch.cat([terms.positive_ids, terms.negative_ids]))
    assert masked.nonzero().tolist() == [[0, 2], [1, 4], [2, 0]]
    computed = Objective(recipe(lambda_isotropy=0, lambda_reg=0))(terms, batch_number=0).loss.item()
    passages = torch.cat([terms.positives, terms.negatives]).double().numpy()
    losses = []
    for row, query in enumerate(terms.queries.double().numpy()):
        kept = [row, *(column for column in range(6) if column != row and not masked[row, column])]
        losses.append(reference_infonce(query[None], passages[kept], 0.05))
    assert computed == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in get_args(IsotropyKind) if kind != "none"])
def test_one_key_switches_the_isotropy_term_and_leaves_the_rest(kind: str) -> None:
    terms = batch(8)
    plain = Objective(recipe(isotropy="none"))(terms, batch_number=3)
    assert plain.isotropy is None
    with_term = Objective(recipe(isotropy=kind, lambda_isotropy=0.5))(terms, batch_number=3)
    assert with_term.contrastive.item() == pytest.approx(plain.contrastive.item(), rel=1e-6)
    assert with_term.variance.item() == plain.variance.item()
    assert with_term.loss.item() == pytest.approx(plain.loss.item() + 0.5 * with_term.isotropy.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["sigreg", "sigreg-exact"])
def test_reference_batch_keeps_the_weight_of_one_text_whatever_the_batch(kind: str) -> None:
    """SIGReg's gradient on one text hardly depends on the batch, a mean loss's falls as 1 / N; with it both do."""
    sizes = {}
    for count in (16, 64):
        terms = batch(count, shift=1.0)  # far from N(0, I), where the gradient is no longer chance
        queries = terms.queries.clone().requires_grad_()
        arm = recipe(isotropy=kind, **{"isotropy_options.reference_batch": 32})
        objective = Objective(arm)(dataclasses.replace(terms, queries=queries), batch_number=0)
        plain = Objective(recipe(isotropy=kind))(terms, batch_number=0)
        assert objective.isotropy.item() == pytest.approx(32 / count * plain.isotropy.item(), rel=1e-5)
        assert objective.isotropy_null == pytest.approx(32 / count * plain.isotropy_null)
        (gradient,) = torch.autograd.grad(objective.isotropy, queries)
        sizes[count] = gradient.norm(dim=1).mean().item()
    assert sizes[16] / sizes[64] == pytest.approx(4, rel=0.1)


def test_the_null_line_is_logged_beside_the_statistic() -> None:
    nulls = {
        kind: Objective(recipe(isotropy=kind))(batch(8), batch_number=0).isotropy_null
        for kind in ("sigreg", "sigreg-exact", "covariance", "uniformity")
    }
    assert nulls["sigreg"] == pytest.approx(1.0525, abs=1e-4)
    assert nulls["sigreg-exact"] == pytest.approx(1.0594, abs=1e-4)
    assert (nulls["covariance"], nulls["uniformity"]) == (0, None)
    for kind in ("sigreg", "sigreg-exact"):
        debiased = Objective(recipe(isotropy=kind, **{"isotropy_options.debias": True}))(batch(8), batch_number=0)
        assert debiased.isotropy_null == 0


def test_distances_are_held_at_0_and_no_higher() -> None:
    """Rounding may carry |a|^2 + |b|^2 - 2ab below 0; a distance between 0 and 1 is a distance like any other."""
    points = torch.tensor([[0.0, 0.0], [0.3, 0.4]])
    for distances in (squared_distances(points, points), own_squared_distances(points)):
        assert distances[0, 1].item() == pytest.approx(0.25, rel=1e-6)
    far = torch.randn(40, 16, generator=torch.Generator().manual_seed(0)) * 1e3
    assert squared_distances(far, far.clone()).min().item() == 0
    assert own_squared_distances(far.repeat(2, 1)).min().item() == 0


def test_the_spread_of_equal_embeddings_is_almost_0_with_a_finite_gradient() -> None:
    same = torch.ones(6, 4, requires_grad=True)
    spread = standard_deviation(same)
    assert spread.item() == pytest.approx(1e-6, rel=1e-3)
    spread.backward()
    assert torch.isfinite(same.grad).all()
    nearly = torch.full((6, 4), 1e-5) * torch.tensor([[1.0], [-1.0]] * 3)
    assert standard_deviation(nearly).item() == pytest.approx(1e-5 * math.sqrt(6 / 5), rel=1e-4)
