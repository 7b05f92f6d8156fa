"""How fast a run goes: what speed.jsonl says. Nothing here enters metrics.jsonl, which a second run must equal."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ragcun_cli.train.hardware import Hardware

# Dense half-precision FLOP/s of the makers' data sheets; the first name that a device's name contains counts.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


@dataclass
class Speedometer:
    """Counts since the last reading."""

    hardware: Hardware
    flops_per_token: float
    started: float = 0.0
    triples: int = 0
    tokens: int = 0

    def start(self) -> None:
        """Begin counting anew."""
        self.started, self.triples, self.tokens = time.perf_counter(), 0, 0

    def count(self, triples: int, tokens: int) -> None:
        """One loss more is done."""
        self.triples += triples
        self.tokens += tokens

    def pause(self) -> float:
        """The time now, to be given to `resume` after something that is not training."""
        return time.perf_counter()

    def resume(self, paused: float) -> None:
        """Go on as if no time had passed since `pause`."""
        self.started += time.perf_counter() - paused

    def triples_per_second(self) -> float:
        """Since the last reading."""
        return self.triples / max(time.perf_counter() - self.started, 1e-9)

    def read(self) -> dict[str, Any]:
        """What speed.jsonl says of the steps since the last reading; begins anew."""
        seconds = max(time.perf_counter() - self.started, 1e-9)
        tokens_per_second = self.tokens / seconds
        peak = peak_flops(self.hardware)
        reading = {
            "triples_per_second": round(self.triples / seconds, 2),
            "tokens_per_second": round(tokens_per_second, 1),
            "model_flop_utilisation": round(tokens_per_second * self.flops_per_token / peak, 4) if peak else None,
            "peak_memory_bytes": peak_memory(),
        }
        self.start()
        return reading


def peak_flops(hardware: Hardware) -> float | None:
    """Half-precision FLOP/s of a GPU that is known here, else None."""
    if hardware.capability is None:
        return None
    return next((flops for name, flops in PEAK_FLOPS.items() if name in hardware.name), None)


def training_flops_per_token(network: nn.Module, tokens_per_text: float) -> float:
    """Of forward and backward pass: 6 per weight of the layers, 12 x width x text length per layer for attention.

    Embedding tables are looked up, not multiplied. Activation recomputation does not count: it is no model FLOP
    (PaLM, arXiv 2204.02311, Appendix B).
    """
    tables = {id(each.weight) for each in network.modules() if isinstance(each, nn.Embedding)}
    weights = sum(each.numel() for each in network.parameters() if id(each) not in tables)
    config: Any = network.config
    layers, width = config.num_hidden_layers, config.hidden_size
    return 6 * weights + 12 * layers * width * tokens_per_text


def peak_memory() -> int:
    """Bytes: the GPU's largest allocation, or this process's largest resident set."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # macOS counts bytes, Linux kilobytes
