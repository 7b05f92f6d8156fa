"""What a training will do, counted before it starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragcun_cli.data.batches import BatchSequence, batches_per_epoch, conflicting_rows
from ragcun_cli.data.triples.table import TripleTable
from ragcun_cli.errors import DataError
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.train.precision import Hardware, choose_precision, explain_precision


@dataclass(frozen=True)
class TrainingPlan:
    """Counts and choices; `steps` are optimiser steps.

    hard_negatives: triples that have one or more. broken_rows_left_out: of the training file. precision: Accelerate's
    name for it. negatives_per_query: the mean over the run's first batches, passages equal to the query's own positive
    left out; fewest_negatives: the minimum over these queries. equal_passages_per_query: the mean number left out.
    texts: distinct texts in the triples; tokens_per_text: their mean; texts_cut: those longer than max_length,
    the dev set's included; both are 0 before texts are tokenised. padding_share: of the computed tokens. chunk: how
    the tokens of one pass were chosen. triples_excluded: those that data.exclude left out. triples_an_epoch: those that
    an epoch trains on, whole steps only. conflicting_rows: rows of the first epoch that share a batch with another
    positive of their query, which then serves as a negative. device_name: such as `NVIDIA A100-SXM4-40GB`.
    """

    triples: int
    hard_negatives: int
    broken_rows_left_out: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    device: str
    precision: str
    precision_explained: str
    negatives_per_query: float
    fewest_negatives: int
    equal_passages_per_query: float
    texts: int
    tokens_per_text: float = 0.0
    texts_cut: int = 0
    triples_excluded: int = 0
    triples_an_epoch: int = 0
    conflicting_rows: int = 0
    padding_share: float = 0.0
    chunk: str = ""
    device_name: str = ""


BATCHES_LOOKED_AT = 1000  # to count negatives per query: takes about a second


def make_plan(recipe: Recipe, table: TripleTable, hardware: Hardware, excluded: int = 0) -> TrainingPlan:
    """Resolve a recipe against its data and this machine. excluded: triples that data.exclude has left out.

    Raises:
        DataError: if the data are too few for one optimiser step, or lack what the loss needs.
        EnvironmentUnfit: if the precision asked for is not available.
    """
    batches = batches_per_epoch(len(table), recipe.batch_size)
    steps_per_epoch = batches // recipe.gradient_accumulation_steps
    if steps_per_epoch == 0:
        needed = recipe.batch_size * recipe.gradient_accumulation_steps
        raise DataError(
            f"{recipe.data.train}: {len(table)} triples do not fill one step of {needed} "
            f"(batch_size {recipe.batch_size} x gradient_accumulation_steps {recipe.gradient_accumulation_steps})",
            "Use more data, or lower these with --set.",
        )
    with_negative = table.with_negative
    if recipe.contrastive == "triplet" and with_negative < len(table):
        raise DataError(
            f"{recipe.data.train}: contrastive: triplet needs a negative in every row; "
            f"{len(table) - with_negative} of {len(table)} have none",
            "Use contrastive: infonce, whose negatives are the batch's other passages.",
        )
    total_steps = steps_per_epoch * recipe.epochs
    if recipe.max_steps is not None:
        total_steps = min(total_steps, recipe.max_steps)
    precision = choose_precision(recipe.mixed_precision, hardware)
    mean, fewest, equal = _negatives_per_query(recipe, table, min(batches, BATCHES_LOOKED_AT))
    if mean == 0:
        raise DataError(
            f"{recipe.data.train}: no query has a negative: every other passage equals the query's own positive",
            "Use triples with different passages, or a larger batch_size.",
        )
    return TrainingPlan(
        triples=len(table),
        hard_negatives=with_negative,
        broken_rows_left_out=table.left_out,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        warmup_steps=min(recipe.warmup_steps, total_steps),
        device=hardware.device,
        precision=precision,
        precision_explained=explain_precision(precision, hardware),
        negatives_per_query=mean,
        fewest_negatives=fewest,
        equal_passages_per_query=equal,
        texts=len(table.texts),
        triples_excluded=excluded,
        triples_an_epoch=steps_per_epoch * recipe.gradient_accumulation_steps * recipe.batch_size,
        conflicting_rows=_conflicting_rows(recipe, table),
        device_name=hardware.name,
    )


def what_is_trained_on(plan: TrainingPlan, recipe: Recipe) -> list[str]:
    """List what a recipe does not show: triples that no step uses, and positives that serve as negatives."""
    sentences = []
    per_step = recipe.batch_size * recipe.gradient_accumulation_steps
    if plan.total_steps < plan.steps_per_epoch:
        sentences.append(
            f"max_steps ends the run within its first epoch: it trains on {plan.total_steps * per_step} of "
            f"{plan.triples} triples"
        )
    elif plan.triples_an_epoch < plan.triples:
        left = plan.triples - plan.triples_an_epoch
        sentences.append(
            f"an epoch trains on {plan.triples_an_epoch} of {plan.triples} triples: {left} do not fill a step of "
            f"{per_step} (batch_size {recipe.batch_size} x gradient_accumulation_steps "
            f"{recipe.gradient_accumulation_steps})"
            + ("; each epoch leaves out different ones" if plan.total_steps > plan.steps_per_epoch else "")
        )
    if plan.conflicting_rows:
        share = 100 * plan.conflicting_rows / max(plan.triples_an_epoch, 1)
        sentences.append(
            f"{plan.conflicting_rows} triples of the first epoch ({min(share, 100):.1f} %) share a batch with another "
            "positive of their query, which serves as its negative"
        )
    return sentences


def _conflicting_rows(recipe: Recipe, table: TripleTable) -> int:
    return 0 if recipe.contrastive == "triplet" else conflicting_rows(table, recipe.batch_size, recipe.seed)


def _negatives_per_query(recipe: Recipe, table: TripleTable, batches: int) -> tuple[float, int, float]:
    """Return the mean and minimum over the first batches, and the mean number of passages left out."""
    if recipe.contrastive == "triplet":
        return 1.0, 1, 0.0
    sequence = BatchSequence(table, recipe.batch_size, recipe.seed)
    negatives, others = [], []
    for number in range(batches):
        batch = sequence.batch(number)
        negatives.append(batch.negatives_per_query())
        others.append(len(batch.positives) + len(batch.negatives) - 1)
    counts = np.stack(negatives)
    return float(counts.mean()), int(counts.min()), round(float(np.mean(others) - counts.mean()), 4)
