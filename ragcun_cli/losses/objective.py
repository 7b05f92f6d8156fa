"""The objective: contrastive + lambda_isotropy * isotropy + lambda_reg * (std - 1)^2."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ragcun_cli.losses.contrastive import infonce, triplet
from ragcun_cli.losses.sigreg import random_directions, sigreg
from ragcun_cli.losses.variance import variance_penalty
from ragcun_cli.recipe.schema import Recipe

# A learned temperature below this would turn a batch into its one hardest negative.
MINIMUM_TEMPERATURE = 0.01


@dataclass(frozen=True)
class TripleEmbeddings:
    """The embeddings of a batch.

    queries, positives: (n, D). negatives: (m, D), the hard negatives there are; negative_owners: (m,) int64, the
    row whose negative each one is.
    """

    queries: Tensor
    positives: Tensor
    negatives: Tensor
    negative_owners: Tensor


@dataclass(frozen=True)
class ObjectiveTerms:
    """The loss and what it is made of, each a scalar; a term that weighs nothing is not computed and is None."""

    loss: Tensor
    contrastive: Tensor
    isotropy: Tensor | None
    variance: Tensor | None


IsotropyTerm = Callable[[Tensor, Recipe, int], Tensor]  # (embeddings of one view, recipe, batch number) -> scalar


def _sigreg_term(embeddings: Tensor, recipe: Recipe, batch_number: int) -> Tensor:
    options = recipe.isotropy_options
    directions = random_directions(embeddings.shape[1], options.slices, recipe.seed, batch_number).to(embeddings.device)
    return sigreg(embeddings, directions, options.points, options.t_max)


ISOTROPY_TERMS: dict[str, IsotropyTerm] = {"sigreg": _sigreg_term}


class Objective(nn.Module):
    """Adds up the terms of a recipe. Its one parameter, if any, is the logarithm of a learned temperature."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(recipe.temperature)), requires_grad=recipe.learn_temperature
        )

    @property
    def temperature(self) -> Tensor:
        """Of InfoNCE, a positive scalar."""
        return self.log_temperature.exp()

    @torch.no_grad()
    def keep_temperature_in_range(self) -> None:
        """To be called after each step: a floor inside the loss would leave no gradient to climb back with."""
        self.log_temperature.clamp_(min=math.log(MINIMUM_TEMPERATURE))

    def forward(self, embeddings: TripleEmbeddings, batch_number: int) -> ObjectiveTerms:
        """The terms of one batch, computed in float32; its number in the run seeds SIGReg's directions."""
        recipe = self.recipe
        with torch.autocast(embeddings.queries.device.type, enabled=False):
            queries, positives = embeddings.queries.float(), embeddings.positives.float()
            contrastive = self._contrastive(queries, positives, embeddings)
            loss = contrastive
            isotropy = variance = None
            # Queries and passages are two samples, each to be N(0, I): one statistic over both would let a pair's
            # two texts count as independent.
            if recipe.lambda_isotropy > 0:
                term = ISOTROPY_TERMS[recipe.isotropy]
                isotropy = (term(queries, recipe, batch_number) + term(positives, recipe, batch_number)) / 2
                loss = loss + recipe.lambda_isotropy * isotropy
            if recipe.lambda_reg > 0:
                variance = (variance_penalty(queries) + variance_penalty(positives)) / 2
                loss = loss + recipe.lambda_reg * variance
        return ObjectiveTerms(loss, contrastive, isotropy, variance)

    def _contrastive(self, queries: Tensor, positives: Tensor, embeddings: TripleEmbeddings) -> Tensor:
        negatives = embeddings.negatives.float()
        if self.recipe.contrastive == "infonce":
            return infonce(queries, positives, negatives, self.temperature)
        owners = embeddings.negative_owners
        return triplet(queries[owners], positives[owners], negatives, self.recipe.triplet_margin)
