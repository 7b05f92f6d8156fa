"""How far a run is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """What must continue where it stopped, besides the tensors.

    step: optimiser steps done. best_score, best_step: of the dev scores so far. scores_without_gain: dev scores since
    the best. chunk_tokens: tokens that pass the encoder at a time, None for a whole batch; with another number the
    last digits would differ. overflows: steps in a row that fp16's loss scaling skipped. tokens: those that passed the
    encoder. behind: the dev score and the epoch's model that are due at this step are still to be made.
    """

    step: int = 0
    best_score: float | None = None
    best_step: int | None = None
    scores_without_gain: int = 0
    chunk_tokens: int | None = None
    overflows: int = 0
    tokens: int = 0
    behind: bool = False
