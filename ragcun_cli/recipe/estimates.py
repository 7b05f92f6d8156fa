"""How long training and evaluation will take on a machine, before either has begun: a calculation from counts.

Work is counted in FLOP (6 a weight and token for training, 2 for encoding, and attention's share; Appendix B of PaLM,
arXiv 2204.02311) and divided by a part of what the device's data sheet says. No GPU has been measured with ragcun yet,
so that these parts are assumptions, and the result may be wrong by a factor of two. A measured rate takes their place
where one is given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.recipe.devices import device_speed
from ragcun_cli.recipe.schema import Recipe

# Of the data sheet's FLOP/s, assumed: small batches of short texts keep a GPU busy in part only.
TRAINING_SHARE = 0.25
ENCODING_SHARE = {"half": 0.35, "single": 0.6}
# A CPU's FLOP/s for each core, measured: 12.1 triples of MiniLM a second on two cores (benchmarks/training.py).
CPU_CORE_FLOPS = 65e9
# No step is shorter: a GPU's some 1,500 kernels of 12 layers, forward, backward and AdamW, started one by one. Assumed.
SECONDS_OF_A_STEP, SECONDS_OF_A_HEAD_STEP = 0.06, 0.015
TOKENS_PER_WORD = 1.35  # of BERT's word pieces in English text
# Words of MS MARCO's queries and passages, Table 1 of BEIR (arXiv 2104.08663); two more tokens begin and end a text.
QUERY_WORDS, PASSAGE_WORDS = 6.0, 56.0
UNKNOWN_WORDS = 100.0  # of a passage of a collection that is not in that table


@dataclass(frozen=True)
class EncoderShape:
    """What of an encoder the FLOP depend on. known: False where it was assumed."""

    layers: int
    width: int
    inner: int
    known: bool = True

    @property
    def weights(self) -> int:
        """Of the layers' matrices: four of attention and two of the feed-forward part each."""
        return self.layers * (4 * self.width**2 + 2 * self.width * self.inner)


BASE = EncoderShape(12, 768, 3072)
SHAPES = {
    "sentence-transformers/all-mpnet-base-v2": BASE,
    "sentence-transformers/all-MiniLM-L6-v2": EncoderShape(6, 384, 1536),
    "embedded:all-MiniLM-L6-v2": EncoderShape(6, 384, 1536),
}


@dataclass(frozen=True)
class Machine:
    """What computes: so many devices of a name, "CPU" with cores, on each of so many nodes."""

    device: str
    devices: int
    cores: int
    nodes: int = 1

    @property
    def is_gpu(self) -> bool:
        """Whether it has any."""
        return self.device != "CPU"

    def flops(self, kind: str) -> float | None:
        """Of one device's data sheet, or of all cores; kind: half or single. None for an unknown device."""
        if not self.is_gpu:
            return CPU_CORE_FLOPS * self.cores
        speed = device_speed(self.device)
        return None if speed is None else speed.half if kind == "half" else speed.single


@dataclass(frozen=True)
class Estimate:
    """Seconds, and in a phrase each what they rest on. None: not to be said."""

    seconds: float | None
    basis: tuple[str, ...]


def shape_of(base_model: str) -> EncoderShape:
    """Of a known encoder or of a folder's config.json; else BERT-base's, and it says that this was assumed."""
    if base_model in SHAPES:
        return SHAPES[base_model]
    try:
        config = json.loads((Path(base_model).expanduser() / "config.json").read_text(encoding="utf-8"))
        return EncoderShape(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return EncoderShape(BASE.layers, BASE.width, BASE.inner, known=False)


def tokens_of(words: float, max_length: int) -> float:
    """Of a text of so many words, cut at max_length."""
    return min(words * TOKENS_PER_WORD + 2, max_length)


def estimate_training(
    recipe: Recipe,
    shape: EncoderShape,
    triples: int,
    machine: Machine,
    devices: int,
    triples_per_second: float | None = None,
) -> Estimate:
    """Of one training on so many of the machine's devices, over all nodes.

    triples_per_second: measured, of one such training on this machine; replaces the calculation.
    """
    steps = triples // (recipe.batch_size * recipe.gradient_accumulation_steps) * recipe.epochs
    if recipe.max_steps is not None:
        steps = min(steps, recipe.max_steps)
    seen = steps * recipe.batch_size * recipe.gradient_accumulation_steps
    if triples_per_second is not None:
        return Estimate(seen / triples_per_second, (f"{triples_per_second:g} triples/s, as given",))
    peak = machine.flops("half")
    if peak is None:
        return Estimate(None, (f"{machine.device}: a device whose speed is not known here",))
    lengths = [tokens_of(words, recipe.max_length) for words in (QUERY_WORDS, PASSAGE_WORDS, PASSAGE_WORDS)]
    rate = peak * devices * (TRAINING_SHARE if machine.is_gpu else 1)
    shortest = SECONDS_OF_A_STEP if machine.is_gpu else 0.0
    if recipe.freeze_base:
        once = triples * sum(_encoding_flop(shape, length) for length in lengths) / rate
        seconds = once + steps * (SECONDS_OF_A_HEAD_STEP if machine.is_gpu else 0.05)
    else:
        work = 3 * sum(_encoding_flop(shape, length) for length in lengths) * seen
        seconds = max(work / rate, steps * shortest * recipe.gradient_accumulation_steps)
    return Estimate(seconds, _training_basis(machine, shape, peak))


def estimate_encoding(
    shape: EncoderShape, passages: Sequence[tuple[int, float]], max_length: int, precision: str, machine: Machine
) -> Estimate:
    """Of the passages of an evaluation, once; passages: count and mean words of each dataset."""
    kind = "single" if precision == "float32" else "half"
    peak = machine.flops(kind)
    if peak is None:
        return Estimate(None, (f"{machine.device}: a device whose speed is not known here",))
    work = sum(count * _encoding_flop(shape, tokens_of(words, max_length)) for count, words in passages)
    share = ENCODING_SHARE[kind] if machine.is_gpu else 1.0
    basis = f"evaluation: {share:.0%} of {peak / 1e12:g} TFLOP/s ({precision}, assumed)"
    return Estimate(work / (peak * share * machine.devices), (basis,) if machine.is_gpu else ())


def _encoding_flop(shape: EncoderShape, tokens: float) -> float:
    """Of one text: 2 a weight and token, and 4 x width x length a token and layer for attention."""
    return tokens * (2 * shape.weights + 4 * shape.layers * shape.width * tokens)


def _training_basis(machine: Machine, shape: EncoderShape, peak: float) -> tuple[str, ...]:
    assumed = () if shape.known else ("the encoder's shape is not known here: BERT-base's is assumed",)
    if not machine.is_gpu:
        return (f"{CPU_CORE_FLOPS / 1e9:g} GFLOP/s a core, measured on another CPU with MiniLM", *assumed)
    return (
        f"training: {TRAINING_SHARE:.0%} of {peak / 1e12:g} TFLOP/s (data sheet; the share is assumed), "
        f"a step at least {SECONDS_OF_A_STEP * 1000:.0f} ms (assumed)",
        *assumed,
    )
