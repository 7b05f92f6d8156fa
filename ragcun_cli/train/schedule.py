"""The learning rate: linear warm-up, then a cosine to zero, by optimiser steps."""

from __future__ import annotations

import math


def rate_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """What the learning rates are multiplied by at optimiser step `step`, counted from 0.

    The first step already trains (1 / warmup_steps) and the last still does.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))
