"""A run's speed, for speed.jsonl. Nothing here enters metrics.jsonl, which a second run must reproduce exactly."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ragcun_cli.recipe.estimates import device_speed
from ragcun_cli.train.precision import Hardware


@dataclass
class Speedometer:
    """What was trained since the last reading, and the seconds the steps took, without dev scoring and saving.

    hardware: of one process; processes: how many of them train together.
    """

    hardware: Hardware
    flops_per_token: float
    processes: int = 1
    triples: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def count(self, triples: int, tokens: int, seconds: float) -> None:
        """Count one more step; tokens are those that passed through the encoder, in all processes."""
        self.triples += triples
        self.tokens += tokens
        self.seconds += seconds

    def triples_per_second(self) -> float:
        """Return the triples trained per second since the last reading."""
        return self.triples / max(self.seconds, 1e-9)

    def read(self) -> dict[str, Any]:
        """Return the speed.jsonl figures since the last reading, and reset the counters."""
        tokens_per_second = self.tokens / max(self.seconds, 1e-9)
        peak = peak_flops(self.hardware)
        reading = {
            "triples_per_second": round(self.triples_per_second(), 2),
            # None for a frozen encoder, through which no token passes.
            "tokens_per_second": round(tokens_per_second, 1) if self.tokens else None,
            "model_flop_utilisation": round(tokens_per_second * self.flops_per_token / (self.processes * peak), 4)
            if peak and self.tokens
            else None,
            "peak_memory_bytes": peak_memory(),
        }
        self.triples, self.tokens, self.seconds = 0, 0, 0.0
        return reading


def peak_flops(hardware: Hardware) -> float | None:
    """Return a known GPU's half-precision FLOP/s, else None."""
    if hardware.capability is None:
        return None
    speed = device_speed(hardware.name)
    return None if speed is None else speed.half


def training_flops_per_token(network: nn.Module, tokens_per_text: float) -> float:
    """Count forward and backward FLOPs: 6 per layer weight, plus 12 x width x text length per layer for attention.

    Embedding tables are looked up, not multiplied. Activation recomputation is not counted: it is not a model FLOP
    (PaLM, arXiv 2204.02311, Appendix B).
    """
    tables = {id(each.weight) for each in network.modules() if isinstance(each, nn.Embedding)}
    weights = sum(each.numel() for each in network.parameters() if id(each) not in tables)
    config: Any = network.config
    layers, width = config.num_hidden_layers, config.hidden_size
    return 6 * weights + 12 * layers * width * tokens_per_text


def peak_memory() -> int:
    """Return peak memory in bytes: the GPU's largest allocation, or this process's largest resident set."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # macOS counts bytes, Linux kilobytes
