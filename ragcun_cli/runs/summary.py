"""How a training ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ArmSummary:
    """How an arm ended. `model` is the folder to evaluate: the best on dev, or the final one without dev."""

    name: str
    folder: str
    model: str
    steps: int
    best_step: int | None
    best_dev_ndcg: float | None
