"""No embedding that is not a number leaves the tool: the one check, wherever embeddings come from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ragcun_cli.arrays import Vectors
from ragcun_cli.errors import ModelError

SHOWN_TEXTS = 3
SHOWN_CHARACTERS = 60


def require_finite(embeddings: Vectors, label: Callable[[int], str]) -> None:
    """embeddings: (n, D); label(row): what an error calls its text.

    Raises:
        ModelError: naming texts whose embedding is not finite.
    """
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if not len(broken):
        return
    named = ", ".join(label(row) for row in broken[:SHOWN_TEXTS].tolist())
    raise ModelError(
        f"the model gives no finite embedding for {len(broken)} of {len(embeddings)} texts, first {named}",
        "Its training diverged (see its run's metrics.jsonl), half precision overflowed, or a weight is not a number.",
    )


def shown(text: str) -> str:
    """A text where it has no name."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")
