"""The device that models run on."""

from __future__ import annotations

import torch


def best_device() -> str:
    """`cuda`, `mps` or `cpu`: the fastest that torch sees on this machine."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"
