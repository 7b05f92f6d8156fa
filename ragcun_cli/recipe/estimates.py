"""Estimate the time, memory and disk that training and evaluation take, for `preflight`, `train --dry-run` and
`aws plan`.

An estimate is data counts times machine rates. Rates are measured in a few real steps (`ragcun_cli.train.trial`) or
calculated as FLOP divided by a share of the device's data-sheet speed. ragcun has not been measured on any GPU yet, so
these shares are assumptions, and calculated values may be wrong by a factor of two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ragcun_cli.recipe.encoder_shapes import EncoderShape
from ragcun_cli.recipe.schema import Recipe

# Assumed shares of the data sheet's FLOP/s: small batches of short texts do not keep a GPU fully busy.
TRAINING_SHARE = 0.25
ENCODING_SHARE = {"half": 0.35, "single": 0.6}
# FLOP/s per CPU core, measured: 12.1 triples per second with MiniLM on two cores (benchmarks/training.py).
CPU_CORE_FLOPS = 65e9
# Assumed minimum: 12 layers launch about 1,500 GPU kernels one by one (forward, backward and AdamW).
SECONDS_OF_A_STEP, SECONDS_OF_A_HEAD_STEP = 0.06, 0.015
SECONDS_OF_A_CPU_HEAD_STEP = 0.05
SECONDS_TO_START = 30.0  # imports, loading the model, first reading of the data; assumed
TOKENISED_A_SECOND = 150e3  # tokens per core, measured on two; each text is tokenised once, however many epochs
WRITTEN_A_SECOND = 200e6  # bytes of a model folder, including checksums, to an EC2 disk; assumed
TOKENS_PER_WORD = 1.35  # BERT word pieces in English text
# Words in MS MARCO's queries and passages, BEIR's Table 1 (arXiv 2104.08663). A start and an end token are added.
QUERY_WORDS, PASSAGE_WORDS = 6.0, 56.0
UNKNOWN_WORDS = 100.0  # per passage, for collections not in that table
BYTES_OF_FLOAT = 4
ADAM_FLOATS = 4  # weight, gradient and two moments per trained parameter
CHECKPOINT_FLOATS = 3  # the same without the gradient
# Bytes kept per token, layer and unit of width for the backward pass; measured with MiniLM in float32.
KEPT_BYTES = {"single": 62.0, "half": 40.0}
RUNTIME_BYTES = 1.0e9  # Python, torch and its libraries in CPU memory (measured), or a GPU's context (assumed)
FROZEN_BYTES_A_TOKEN = 40_000.0  # for a pass that keeps nothing, at any depth; assumed


@dataclass(frozen=True)
class DeviceSpeed:
    """Dense FLOP/s: half for bf16 or fp16 products with float32 sums, single for float32 without TF32."""

    half: float
    single: float


# The first entry whose words all occur in the device's name is used.
DEVICES = {
    "H200": DeviceSpeed(989e12, 67e12),
    "H100 PCIe": DeviceSpeed(756e12, 51e12),
    "H100": DeviceSpeed(989e12, 67e12),
    "A100": DeviceSpeed(312e12, 19.5e12),
    "A10G": DeviceSpeed(70e12, 31.5e12),
    "A10": DeviceSpeed(125e12, 31.2e12),
    "L40S": DeviceSpeed(362e12, 91.6e12),
    "L4": DeviceSpeed(121e12, 30.3e12),
    "V100": DeviceSpeed(125e12, 15.7e12),
    "T4": DeviceSpeed(65e12, 8.1e12),
    "RTX 4090": DeviceSpeed(165e12, 82.6e12),
    "RTX 3090": DeviceSpeed(71e12, 35.6e12),
}


def device_speed(name: str) -> DeviceSpeed | None:
    """Return the speed of a device by the name that its driver or AWS uses, or None if it is unknown."""
    words = set(re.split(r"[\s-]+", name))
    return next((speed for known, speed in DEVICES.items() if words.issuperset(known.split())), None)


@dataclass(frozen=True)
class Machine:
    """Hardware: device name (or "CPU" with cores), devices per node and number of nodes."""

    device: str
    devices: int
    cores: int
    nodes: int = 1
    device_bytes: float | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether the machine has GPUs."""
        return self.device != "CPU"

    def flops(self, kind: str) -> float | None:
        """FLOP/s of one GPU by data sheet or of all CPU cores, None if unknown. kind: half or single."""
        if not self.is_gpu:
            return CPU_CORE_FLOPS * self.cores
        speed = device_speed(self.device)
        return None if speed is None else speed.half if kind == "half" else speed.single


@dataclass(frozen=True)
class RunCounts:
    """What a training run reads. Token counts are means over a sample, or assumed.

    text_tokens: in all distinct texts. batch_tokens: in the longest batch. dev_texts: passages and queries, None if
    not counted, 0 without a dev set.
    """

    triples: int
    tokens_per_triple: float
    text_tokens: float
    batch_tokens: float
    dev_texts: int | None = 0
    dev_tokens: float = 0.0


@dataclass(frozen=True)
class ModelSize:
    """A model's parameters, its trained parameters, and the bytes kept per token for the backward pass.

    runtime_bytes: what the process takes in addition.
    """

    parameters: int
    trainable: int
    kept_bytes: float
    runtime_bytes: float = RUNTIME_BYTES


@dataclass(frozen=True)
class Rates:
    """Rates of a machine and a model. training, encoding, tokenising: tokens/s. least_step, head_step (for a frozen
    encoder's head) and start: seconds. writing: bytes/s. triples: per second, if given; replaces the training rate.

    None means unknown. basis: short phrases that say where the rates come from.
    """

    training: float | None
    encoding: float | None
    tokenising: float
    least_step: float
    head_step: float
    start: float
    writing: float
    basis: tuple[str, ...]
    triples: float | None = None


@dataclass(frozen=True)
class Estimate:
    """Estimate for one training run. parts: seconds by name, None if unknown. memory: peak bytes of the GPU or
    the machine. disk: most bytes in use at a time. tokens: number that pass through the encoder in training.
    """

    parts: dict[str, float | None]
    memory: float
    disk: float
    tokens: float
    basis: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Total seconds, None if a part is unknown."""
        return whole_seconds(self.parts)

    def as_json(self, dollars: float | None) -> dict[str, Any]:
        """Return the estimate for `--json`, with its cost in dollars if known."""
        return {
            "seconds": self.seconds,
            "parts": self.parts,
            "memory_bytes": round(self.memory),
            "disk_bytes": round(self.disk),
            "tokens": round(self.tokens),
            "dollars": dollars,
            "basis": list(self.basis),
        }


def whole_seconds(parts: dict[str, float | None]) -> float | None:
    """Return the sum of the parts, or None if a part is unknown."""
    known = [seconds for seconds in parts.values() if seconds is not None]
    return sum(known) if len(known) == len(parts) else None


def steps_of(recipe: Recipe, triples: int) -> tuple[int, int]:
    """Return the optimiser steps of a run and of one epoch."""
    of_epoch = triples // recipe.batch_size // recipe.gradient_accumulation_steps
    steps = of_epoch * recipe.epochs
    return (steps if recipe.max_steps is None else min(steps, recipe.max_steps)), of_epoch


def tokens_of(words: float, max_length: int) -> float:
    """Return the tokens in a text of `words` words, cut at max_length."""
    return min(words * TOKENS_PER_WORD + 2, max_length)


def assumed_counts(recipe: Recipe, triples: int) -> RunCounts:
    """Assume texts like MS MARCO's with one negative each, if the data cannot be counted here."""
    of_triple = tokens_of(QUERY_WORDS, recipe.max_length) + 2 * tokens_of(PASSAGE_WORDS, recipe.max_length)
    longest = recipe.batch_size * (tokens_of(QUERY_WORDS, recipe.max_length) + 2 * recipe.max_length)
    return RunCounts(
        triples,
        of_triple,
        text_tokens=triples * of_triple,
        batch_tokens=longest,
        dev_texts=None if recipe.data.dev is not None else 0,
    )


def assumed_size(recipe: Recipe, shape: EncoderShape, kind: str) -> ModelSize:
    """Calculate the model size from the encoder's shape. kind: half or single."""
    head = 2 * shape.width * (shape.width + recipe.output_dim)
    return ModelSize(
        parameters=shape.parameters + head,
        trainable=head if recipe.freeze_base else shape.parameters + head,
        kept_bytes=KEPT_BYTES[kind] * shape.layers * shape.width,
    )


def calculated_rates(
    recipe: Recipe, shape: EncoderShape, machine: Machine, devices: int, triples: float | None = None
) -> Rates:
    """Calculate rates for one training run on `devices` devices over all nodes. triples: measured per second."""
    peak = machine.flops("half")
    lengths = [tokens_of(words, recipe.max_length) for words in (QUERY_WORDS, PASSAGE_WORDS, PASSAGE_WORDS)]
    per_token = sum(map(shape.flop, lengths)) / sum(lengths)
    rate = None if peak is None else peak * devices * (TRAINING_SHARE if machine.is_gpu else 1.0) / per_token
    basis: tuple[str, ...]
    if triples is not None:
        basis = (f"{triples:g} triples/s, as given",)
    elif peak is None:
        basis = (f"{machine.device}: ragcun does not know this device's speed",)
    elif machine.is_gpu:
        basis = (
            f"training: {TRAINING_SHARE:.0%} of {peak / 1e12:g} TFLOP/s (data sheet; the share is assumed), "
            f"at least {SECONDS_OF_A_STEP * 1000:.0f} ms per step (assumed)",
        )
    else:
        basis = (f"{CPU_CORE_FLOPS / 1e9:g} GFLOP/s per core, measured on another CPU with MiniLM",)
    if not shape.known:
        basis += ("unknown encoder shape: assumed to be BERT-base's",)
    return Rates(
        training=None if rate is None else rate / 3,  # the backward pass takes twice as much as the forward pass
        encoding=rate,
        tokenising=TOKENISED_A_SECOND * machine.cores,
        least_step=SECONDS_OF_A_STEP if machine.is_gpu else 0.0,
        head_step=SECONDS_OF_A_HEAD_STEP if machine.is_gpu else SECONDS_OF_A_CPU_HEAD_STEP,
        start=SECONDS_TO_START,
        writing=WRITTEN_A_SECOND,
        basis=basis,
        triples=triples,
    )


def estimate_training(
    recipe: Recipe, counts: RunCounts, size: ModelSize, rates: Rates, limit: float | None = None
) -> Estimate:
    """Estimate one training run. limit: device memory in bytes; a batch that needs more is processed in chunks."""
    steps, of_epoch = steps_of(recipe, counts.triples)
    seen = steps * recipe.batch_size * recipe.gradient_accumulation_steps
    tokens = counts.text_tokens if recipe.freeze_base else seen * counts.tokens_per_triple
    parts: dict[str, float | None] = {
        "start": rates.start + counts.text_tokens / rates.tokenising,
        "training": _training_seconds(recipe, seen, steps, tokens, rates),
        "dev scores": _dev_seconds(recipe, counts, dev_scores(recipe, steps, of_epoch), rates),
        "saving": _models(recipe, steps, of_epoch) * size.parameters * BYTES_OF_FLOAT / rates.writing,
    }
    not_counted = ("dev scores are not included",) if counts.dev_texts is None else ()
    return Estimate(
        parts=parts,
        memory=_memory(recipe, counts, size, limit),
        disk=_disk(recipe, counts, size, steps, of_epoch),
        tokens=tokens,
        basis=rates.basis + not_counted,
    )


def dev_scores(recipe: Recipe, steps: int, of_epoch: int) -> int:
    """Return how often a run scores its dev set: at each interval and at the end."""
    if recipe.data.dev is None:
        return 0
    return -(-steps // (recipe.eval_every or max(of_epoch, 1)))


def estimate_encoding(
    shape: EncoderShape, passages: Sequence[tuple[int, float]], max_length: int, precision: str, machine: Machine
) -> tuple[float | None, tuple[str, ...]]:
    """Return the seconds to encode an evaluation's passages once, and the basis of the estimate.

    passages: count and mean words of each dataset.
    """
    kind = "single" if precision == "float32" else "half"
    peak = machine.flops(kind)
    if peak is None:
        return None, (f"{machine.device}: ragcun does not know this device's speed",)
    work = sum(count * shape.flop(tokens_of(words, max_length)) for count, words in passages)
    share = ENCODING_SHARE[kind] if machine.is_gpu else 1.0
    basis = f"evaluation: {share:.0%} of {peak / 1e12:g} TFLOP/s ({precision}, assumed)"
    return work / (peak * share * machine.devices), ((basis,) if machine.is_gpu else ())


def _training_seconds(recipe: Recipe, seen: int, steps: int, tokens: float, rates: Rates) -> float | None:
    if rates.triples is not None:
        return seen / rates.triples
    batches = steps * recipe.gradient_accumulation_steps
    if recipe.freeze_base:
        return None if rates.encoding is None else tokens / rates.encoding + batches * rates.head_step
    return None if rates.training is None else max(tokens / rates.training, batches * rates.least_step)


def _dev_seconds(recipe: Recipe, counts: RunCounts, scores: int, rates: Rates) -> float | None:
    if not counts.dev_tokens or not scores:
        return 0.0
    if rates.encoding is None:
        return None
    # A frozen encoder's dev features are computed once; each later score only runs the head.
    return counts.dev_tokens / rates.encoding * (1 if recipe.freeze_base else scores)


def _models(recipe: Recipe, steps: int, of_epoch: int) -> int:
    """Return how many model folders a run writes: one per epoch, the best after each dev score, and the last."""
    return steps // max(of_epoch, 1) + dev_scores(recipe, steps, of_epoch) + 1


def _memory(recipe: Recipe, counts: RunCounts, size: ModelSize, limit: float | None) -> float:
    """Return peak memory. A batch that does not fit is processed in chunks; everything else cannot be split."""
    trained = ADAM_FLOATS * BYTES_OF_FLOAT * size.trainable
    frozen = BYTES_OF_FLOAT * (size.parameters - size.trainable)
    kept = FROZEN_BYTES_A_TOKEN if recipe.freeze_base else size.kept_bytes
    tokens = min(counts.batch_tokens, recipe.chunk_tokens or counts.batch_tokens)
    fixed = size.runtime_bytes + trained + frozen
    return fixed + (kept * tokens if limit is None else min(kept * tokens, max(limit - fixed, 0)))


def _disk(recipe: Recipe, counts: RunCounts, size: ModelSize, steps: int, of_epoch: int) -> float:
    """Return disk bytes: kept checkpoints and the one being written, kept models and the token cache."""
    checkpoints = (recipe.keep_last + 1) * CHECKPOINT_FLOATS * BYTES_OF_FLOAT * size.trainable
    models = steps // max(of_epoch, 1) + 1 + (recipe.data.dev is not None)
    return checkpoints + models * BYTES_OF_FLOAT * size.parameters + BYTES_OF_FLOAT * counts.text_tokens
