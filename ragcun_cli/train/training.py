"""Everything that a training loop works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ragcun_cli.data.batches import BatchSequence, TripleBatch
from ragcun_cli.data.collection import Collection
from ragcun_cli.data.tokens import Lengths
from ragcun_cli.evaluate.scoring import Encode
from ragcun_cli.losses.objective import Objective
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.train.hardware import Hardware
from ragcun_cli.train.inputs import EncoderInput, MakeInput
from ragcun_cli.train.plan import TrainingPlan
from ragcun_cli.train.progress import Progress
from ragcun_cli.train.run_folder import RunFolder


@dataclass
class Training:
    """Prepared by `ragcun_cli.train.prepare`; the loop changes `progress` and the tensors, nothing else.

    model: the encoder as Accelerate wrapped it; make_input: text numbers -> what the model takes; text_lengths: tokens
    by text number; encode: texts -> embeddings for the dev score; dev: None where the recipe
    names no dev set.
    """

    recipe: Recipe
    plan: TrainingPlan
    hardware: Hardware
    folder: RunFolder
    batches: BatchSequence
    encoder: IsotropicGaussianEncoder
    model: Callable[[EncoderInput], Tensor]
    make_input: MakeInput
    text_lengths: Lengths
    encode: Encode
    objective: Objective
    optimiser: Any
    accelerator: Accelerator
    dev: Collection | None
    progress: Progress

    def batch_number(self, step: int, part: int) -> int:
        """Batches are numbered over the run; those that do not fill an epoch's last step are passed over."""
        return batch_number(self.recipe, self.plan, step, part)

    def trainable(self) -> list[torch.nn.Parameter]:
        """The parameters that the optimiser has."""
        parameters = [*self.encoder.parameters(), *self.objective.parameters()]
        return [parameter for parameter in parameters if parameter.requires_grad]


def batch_number(recipe: Recipe, plan: TrainingPlan, step: int, part: int) -> int:
    """The number of the loss `part` of optimiser step `step`, both from 0."""
    epoch, place = divmod(step, plan.steps_per_epoch)
    per_epoch = plan.triples // recipe.batch_size
    return epoch * per_epoch + place * recipe.gradient_accumulation_steps + part


def first_batches(recipe: Recipe, plan: TrainingPlan, batches: BatchSequence, steps: int) -> Iterator[TripleBatch]:
    """The batches of the run's first so many optimiser steps."""
    for step in range(min(steps, plan.total_steps)):
        for part in range(recipe.gradient_accumulation_steps):
            yield batches.batch(batch_number(recipe, plan, step, part))
