"""How far a run is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """What must continue where it stopped, besides the tensors: optimiser steps done, and the best dev score so far."""

    step: int = 0
    best_score: float | None = None
    best_step: int | None = None
