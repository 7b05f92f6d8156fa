"""The objective: contrastive + lambda_isotropy * isotropy + lambda_reg * (std - 1)^2, and its variance term."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ragcun_cli.losses.contrastive import (
    equal_to_own_positive,
    infonce,
    own_squared_distances,
    squared_distances,
    triplet,
)
from ragcun_cli.losses.isotropy import ISOTROPY_TERMS, View, null_line
from ragcun_cli.losses.sigreg import random_directions
from ragcun_cli.recipe.schema import Recipe

# With a learned temperature below this, only a batch's hardest negative would count.
MINIMUM_TEMPERATURE = 0.01


def standard_deviation(embeddings: Tensor) -> Tensor:
    """sqrt(tr(covariance) / D), a scalar; invariant under rotations of the space.

    embeddings: (N, D) float32 with N >= 2; the covariance is the unbiased one.
    """
    # The floor keeps the gradient finite when all embeddings are equal.
    return embeddings.var(dim=0, unbiased=True).mean().clamp_min(1e-12).sqrt()


def variance_penalty(embeddings: Tensor) -> Tensor:
    """(std - 1)^2, a scalar."""
    return (standard_deviation(embeddings) - 1).square()


@dataclass(frozen=True)
class TripleEmbeddings:
    """The embeddings of a batch.

    queries, positives: (n, D). negatives: (m, D), all hard negatives; negative_owners: (m,) int64, the
    row whose negative each one is. positive_ids (n,), negative_ids (m,): int64, equal for equal texts.
    """

    queries: Tensor
    positives: Tensor
    negatives: Tensor
    negative_owners: Tensor
    positive_ids: Tensor
    negative_ids: Tensor


@dataclass(frozen=True)
class ObjectiveTerms:
    """The loss and its terms, each a scalar; a term of zero weight is not computed and is None.

    isotropy_null: the isotropy term's expected value on N(0, I), None if unknown.
    """

    loss: Tensor
    contrastive: Tensor
    isotropy: Tensor | None
    variance: Tensor | None
    isotropy_null: float | None


class Objective(nn.Module):
    """Adds up the terms of a recipe. Its one parameter, if any, is the logarithm of a learned temperature."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        weighs = recipe.isotropy != "none" and recipe.lambda_isotropy > 0
        self.isotropy_term = ISOTROPY_TERMS[recipe.isotropy] if weighs else None
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(recipe.temperature)), requires_grad=recipe.learn_temperature
        )

    @property
    def temperature(self) -> Tensor:
        """The temperature of InfoNCE, a positive scalar."""
        return self.log_temperature.exp()

    @torch.no_grad()
    def keep_temperature_in_range(self) -> None:
        """Clamp the temperature after each step: a floor inside the loss would leave no gradient to recover with."""
        self.log_temperature.clamp_(min=math.log(MINIMUM_TEMPERATURE))

    def forward(self, embeddings: TripleEmbeddings, batch_number: int) -> ObjectiveTerms:
        """The terms of one batch, computed in float32; its number in the run seeds SIGReg's directions."""
        recipe = self.recipe
        with torch.autocast(embeddings.queries.device.type, enabled=False):
            queries, positives = embeddings.queries.float(), embeddings.positives.float()
            passages = torch.cat([positives, embeddings.negatives.float()])
            among_queries, to_passages = self._query_distances(queries, passages)
            contrastive = self._contrastive(queries, passages, to_passages, embeddings)
            loss = contrastive
            isotropy = variance = null = None
            if self.isotropy_term is not None:
                term, options = self.isotropy_term, recipe.isotropy_options
                directions = among_positives = None
                if term.needs_directions:
                    drawn = random_directions(queries.shape[1], options.slices, recipe.seed, batch_number)
                    directions = drawn.to(queries.device)
                if term.needs_distances:
                    among_positives = own_squared_distances(positives)
                of_queries = term.value(View(queries, among_queries, directions), options)
                of_positives = term.value(View(positives, among_positives, directions), options)
                isotropy = (of_queries + of_positives) / 2
                null = null_line(recipe.isotropy, options, len(queries))
                loss = loss + recipe.lambda_isotropy * isotropy
            if recipe.lambda_reg > 0:
                variance = (variance_penalty(queries) + variance_penalty(positives)) / 2
                loss = loss + recipe.lambda_reg * variance
        return ObjectiveTerms(loss, contrastive, isotropy, variance, null)

    def _query_distances(self, queries: Tensor, passages: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the squared distances that the terms need, among queries and to passages, from one product."""
        among = self.isotropy_term is not None and self.isotropy_term.needs_distances
        if self.recipe.contrastive == "triplet":
            return own_squared_distances(queries) if among else None, None
        if not among:
            return None, squared_distances(queries, passages)
        both = squared_distances(queries, torch.cat([queries, passages]))
        return both[:, : len(queries)], both[:, len(queries) :]

    def _contrastive(
        self, queries: Tensor, passages: Tensor, distances: Tensor | None, embeddings: TripleEmbeddings
    ) -> Tensor:
        if distances is None:
            owners, positives, negatives = (
                embeddings.negative_owners,
                passages[: len(queries)],
                passages[len(queries) :],
            )
            return triplet(queries[owners], positives[owners], negatives, self.recipe.triplet_margin)
        passage_ids = torch.cat([embeddings.positive_ids, embeddings.negative_ids])
        false_negatives = equal_to_own_positive(embeddings.positive_ids, passage_ids)
        return infonce(distances, queries.shape[1], self.temperature, false_negatives)
