"""The isotropy terms, by their name in a recipe's `isotropy`.

Each sees one view, the queries or the positives, never both as one sample: a pair's two texts are not independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ragcun_cli.losses import sigreg_exact as slice_free
from ragcun_cli.losses.covariance import covariance_to_identity, vicreg
from ragcun_cli.losses.sigreg import null_value, sigreg
from ragcun_cli.losses.sigreg_exact import sigreg_exact
from ragcun_cli.losses.sphere import spread_out, uniformity
from ragcun_cli.recipe.schema import IsotropyOptions


@dataclass(frozen=True)
class View:
    """One sample of embeddings and what the terms need of it.

    embeddings: (N, D) float32. distances: (N, N), squared, or None if the term needs none.
    directions: (D, K) unit columns, the same for both views of a batch, or None.
    """

    embeddings: Tensor
    distances: Tensor | None
    directions: Tensor | None


@dataclass(frozen=True)
class IsotropyTerm:
    """A term: its value on a view, and its expected value on N(0, I), None if that depends on N and D."""

    value: Callable[[View, IsotropyOptions], Tensor]
    null: Callable[[IsotropyOptions], float] | None
    needs_distances: bool = False
    needs_directions: bool = False


def _sliced(view: View, options: IsotropyOptions) -> Tensor:
    assert view.directions is not None
    value = sigreg(view.embeddings, view.directions, options.points, options.t_max, options.debias)
    return value * _weight(options, len(view.embeddings))


def _exact(view: View, options: IsotropyOptions) -> Tensor:
    assert view.distances is not None
    norms, dimensions = view.embeddings.square().sum(1), view.embeddings.shape[1]
    value = sigreg_exact(view.distances, norms, dimensions, options.debias)
    return value * _weight(options, len(view.embeddings))


def _weight(options: IsotropyOptions, count: int) -> float:
    """Return SIGReg's factor: its gradient per text does not shrink with N as a mean loss's does."""
    return 1.0 if options.reference_batch is None else options.reference_batch / count


ISOTROPY_TERMS: dict[str, IsotropyTerm] = {
    "sigreg": IsotropyTerm(
        _sliced, lambda options: 0.0 if options.debias else null_value(options.points, options.t_max),
        needs_directions=True,
    ),
    "sigreg-exact": IsotropyTerm(
        _exact, lambda options: 0.0 if options.debias else slice_free.NULL_VALUE, needs_distances=True
    ),
    "covariance": IsotropyTerm(lambda view, _: covariance_to_identity(view.embeddings), lambda _: 0.0),
    "vicreg": IsotropyTerm(lambda view, _: vicreg(view.embeddings), None),
    "uniformity": IsotropyTerm(lambda view, _: uniformity(view.embeddings), None),
    "gor": IsotropyTerm(lambda view, _: spread_out(view.embeddings), None),
}  # fmt: skip


def null_line(kind: str, options: IsotropyOptions, count: int) -> float | None:
    """Return the expected logged value of a term on N(0, I) for `count` texts; None if unknown."""
    null = ISOTROPY_TERMS[kind].null
    return None if null is None else null(options) * (_weight(options, count) if kind.startswith("sigreg") else 1.0)
