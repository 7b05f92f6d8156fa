"""Everything that a training loop works with; what the encoder takes for texts, by their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.batches import BatchSequence, TripleBatch
from ragcun_cli.data.collection import Collection
from ragcun_cli.data.token_cache import TokenisedTexts
from ragcun_cli.data.tokens import NumberedTexts, TokenBatch, chunks_within
from ragcun_cli.evaluate.scoring import Encode
from ragcun_cli.losses.objective import Objective
from ragcun_cli.model.encoder import FeatureBatch, IsotropicGaussianEncoder
from ragcun_cli.model.feature_store import FeatureStore
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import RunFolder
from ragcun_cli.runs.status import Progress
from ragcun_cli.train.plan import TrainingPlan
from ragcun_cli.train.precision import Hardware
from ragcun_cli.train.stopping import StopRequests
from ragcun_cli.train.strategy import ParallelLayout
from ragcun_cli.train.world import World

EncoderInput = TokenBatch | FeatureBatch
MakeInput = Callable[[Numbers], EncoderInput]


def features_of(store: FeatureStore, texts: NumberedTexts, needed: Numbers) -> Callable[[Numbers], FeatureBatch]:
    """Return a function from text numbers to a frozen encoder's inputs. needed: texts used, which the store has."""
    places = np.full((len(texts.keys), 2), -1, dtype=np.int64)
    places[needed] = store.places(texts.keys[needed])
    return lambda numbers: FeatureBatch(store.take(places[numbers]))


def tokens_by_text(texts: Sequence[str], tokens: TokenisedTexts) -> Callable[[Sequence[str]], TokenBatch]:
    """Return a tokenizer that looks up texts already tokenised, for sets that fit into memory, such as a dev set."""
    number_of = {text: number for number, text in enumerate(texts)}
    return lambda wanted: tokens.batch(np.array([number_of[text] for text in wanted], dtype=np.int64))


def encode_tokens(encoder: IsotropicGaussianEncoder, lookup: Callable[[Sequence[str]], TokenBatch]) -> Encode:
    """Like `encoder.encode`, for texts already tokenised: a dev set is scored many times in a run."""
    return lambda texts: encoder.project(encoder.features_of_tokens(lookup(texts)))


def encode_features(store: FeatureStore, lookup: Callable[[Sequence[str]], TokenBatch]) -> Encode:
    """Like `encode_tokens`, for a frozen encoder, from its stored features."""
    return lambda texts: store.encode(
        NumberedTexts.of(texts, lambda numbers: lookup([texts[number] for number in numbers.tolist()]))
    )


@dataclass
class Training:
    """A training as `ragcun_cli.train.prepare` sets it up; the loop changes only `progress` and the tensors.

    model: the encoder as Accelerate wrapped it; make_input: text numbers -> what the model takes; text_lengths: tokens
    by text number; encode_with: an encoder -> texts -> embeddings, for the dev score; dev: None if the recipe
    names no dev set. world, spread: which processes train together, and how the model is spread over them.
    model_entry: what the run folder records of the untrained model. base_folder: where the base model's files are.
    """

    recipe: Recipe
    plan: TrainingPlan
    hardware: Hardware
    folder: RunFolder
    batches: BatchSequence
    encoder: IsotropicGaussianEncoder
    model: Callable[[EncoderInput], Tensor]
    make_input: MakeInput
    text_lengths: Numbers
    encode_with: Callable[[IsotropicGaussianEncoder], Encode]
    objective: Objective
    optimiser: Any
    accelerator: Accelerator
    dev: Collection | None
    progress: Progress
    world: World
    spread: ParallelLayout
    stop: StopRequests
    model_entry: dict[str, Any]
    base_folder: Path

    def batch_number(self, step: int, part: int) -> int:
        """Return a batch's number in the run; batches that do not fill an epoch's last step are skipped."""
        return batch_number(self.recipe, self.plan, step, part)

    def shares(self, texts: Numbers) -> list[Numbers]:
        """Return, for each process, which of these texts (by place) it encodes."""
        if self.world.size == 1:
            return [np.arange(len(texts))]
        lengths = self.text_lengths[texts]
        return [self.world.share(lengths, rank) for rank in range(self.world.size)]

    def chunks(self, lengths: Numbers) -> list[Numbers]:
        """Split texts of these lengths into the chunks that are encoded together."""
        return list(chunks_within(lengths, self.progress.chunk_tokens))

    def trainable(self) -> list[torch.nn.Parameter]:
        """Return the parameters that the optimiser updates."""
        parameters = [*self.encoder.parameters(), *self.objective.parameters()]
        return [parameter for parameter in parameters if parameter.requires_grad]


def batch_number(recipe: Recipe, plan: TrainingPlan, step: int, part: int) -> int:
    """Return the number of the batch for loss `part` of optimiser step `step`, both counted from 0."""
    epoch, place = divmod(step, plan.steps_per_epoch)
    per_epoch = plan.triples // recipe.batch_size
    return epoch * per_epoch + place * recipe.gradient_accumulation_steps + part


def first_batches(recipe: Recipe, plan: TrainingPlan, batches: BatchSequence, steps: int) -> Iterator[TripleBatch]:
    """Yield the batches of the run's first `steps` optimiser steps."""
    for step in range(min(steps, plan.total_steps)):
        for part in range(recipe.gradient_accumulation_steps):
            yield batches.batch(batch_number(recipe, plan, step, part))
