"""What a training will do, counted before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from ragcun_cli.data.batches import batches_per_epoch
from ragcun_cli.data.triples import Triple
from ragcun_cli.errors import DataError
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.train.hardware import Hardware, choose_precision, explain_precision


@dataclass(frozen=True)
class TrainingPlan:
    """Counts and choices; `steps` are optimiser steps.

    hard_negatives: triples that have one. precision: Accelerate's name for it.
    """

    triples: int
    hard_negatives: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    device: str
    precision: str
    precision_explained: str
    negatives_per_query: int


def make_plan(recipe: Recipe, triples: list[Triple], hardware: Hardware) -> TrainingPlan:
    """Resolve a recipe against its data and this machine.

    Raises:
        DataError: if the data are too few for one optimiser step, or lack what the loss needs.
        EnvironmentUnfit: if the precision asked for cannot be had.
    """
    batches = batches_per_epoch(len(triples), recipe.batch_size)
    steps_per_epoch = batches // recipe.gradient_accumulation_steps
    if steps_per_epoch == 0:
        needed = recipe.batch_size * recipe.gradient_accumulation_steps
        raise DataError(
            f"{recipe.data.train}: {len(triples)} triples do not fill one step of {needed} "
            f"(batch_size {recipe.batch_size} x gradient_accumulation_steps {recipe.gradient_accumulation_steps})",
            "Use more data, or lower these with --set.",
        )
    hard_negatives = sum(1 for triple in triples if triple.negative is not None)
    if recipe.contrastive == "triplet" and hard_negatives < len(triples):
        raise DataError(
            f"{recipe.data.train}: contrastive: triplet needs a negative in every row; "
            f"{len(triples) - hard_negatives} of {len(triples)} have none",
            "Use contrastive: infonce, whose negatives are the batch's other passages.",
        )
    total_steps = steps_per_epoch * recipe.epochs
    if recipe.max_steps is not None:
        total_steps = min(total_steps, recipe.max_steps)
    precision = choose_precision(recipe.mixed_precision, hardware)
    in_batch = recipe.batch_size - 1 + (recipe.batch_size * hard_negatives) // len(triples)
    return TrainingPlan(
        triples=len(triples),
        hard_negatives=hard_negatives,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        warmup_steps=min(recipe.warmup_steps, total_steps),
        device=hardware.device,
        precision=precision,
        precision_explained=explain_precision(precision, hardware),
        negatives_per_query=1 if recipe.contrastive == "triplet" else in_batch,
    )
