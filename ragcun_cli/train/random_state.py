"""The random generators that dropout draws from: the CPU's and the training device's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def first_random_state(seed: int, rank: int, step: int = 0) -> None:
    """Seed a process's generator: each rank draws its own numbers, rank 0 those of a single-process run.

    step: where a run resumes without its random states, so that it does not repeat its first numbers.
    """
    if rank == 0 and step == 0:
        torch.manual_seed(seed)
        return
    torch.manual_seed(int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0] >> 1))


def random_state() -> dict[str, Tensor]:
    """Return each generator's state: `cpu` and, if available, `cuda` (the current GPU's) or `mps`."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    elif torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """Restore what `random_state` returned; states of devices that are absent here are skipped."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
