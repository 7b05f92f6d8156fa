"""What dropout draws from: the CPU's generator and the one of the device that trains."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def first_random_state(seed: int, rank: int, step: int = 0) -> None:
    """Where a process's numbers start: each rank draws its own, and the first those of a run in one process.

    step: of a run that goes on without its random states, so that it does not draw its first numbers again.
    """
    if rank == 0 and step == 0:
        torch.manual_seed(seed)
        return
    torch.manual_seed(int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0] >> 1))


def random_state() -> dict[str, Tensor]:
    """The states by generator, `cpu` and, where there is one, `cuda` (the current GPU's) or `mps`."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    elif torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """Put back what `random_state` gave; the state of a device that is not here is passed over."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
