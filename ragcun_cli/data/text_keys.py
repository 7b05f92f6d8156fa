"""Content hashes of texts: what is computed for a text is found again by them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

KEY_BYTES = 16

Keys = npt.NDArray[np.void]  # (n,) of KEY_BYTES each


def keys_of(texts: Sequence[str]) -> Keys:
    """blake2b of each text, (n,)."""
    joined = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest() for text in texts
    )
    return np.frombuffer(joined, dtype=f"V{KEY_BYTES}")


def as_keys(values: npt.NDArray[np.uint8]) -> Keys:
    """Keys from how they are kept in a file, (n, KEY_BYTES) uint8."""
    return values.view(f"V{KEY_BYTES}").reshape(-1)


def as_bytes(keys: Keys) -> npt.NDArray[np.uint8]:
    """Keys as they are kept in a file."""
    return keys.view(np.uint8).reshape(-1, KEY_BYTES)
