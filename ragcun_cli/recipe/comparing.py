"""Decide whether two recipes train the same arm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Keys that affect where or how often output is written, or how work is divided, but not what is trained.
KEYS_THAT_MAY_DIFFER = frozenset(
    {
        "output_dir", "description", "log_every", "trackers",
        "save_every", "save_every_minutes", "keep_last", "keep_models", "backup", "parallel", "chunk_tokens",
    }
)  # fmt: skip
SEEDS = frozenset({"seed", "seeds"})
TERMS = frozenset({"name", "isotropy", "lambda_isotropy", "lambda_reg", "isotropy_options"})


def digest_but_seed(recipe: Mapping[str, Any]) -> str:
    """Return a digest that ignores the seed. Only runs with equal digests may be averaged over seeds."""
    return _digest(recipe, KEYS_THAT_MAY_DIFFER | SEEDS)


def digest_but_terms(recipe: Mapping[str, Any]) -> str:
    """Return a digest that ignores the seed and the isotropy and variance terms of the loss."""
    return _digest(recipe, KEYS_THAT_MAY_DIFFER | SEEDS | TERMS)


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return how two recipes differ, ignoring seeds and keys that may differ; nested keys have dots."""
    ours, theirs = _flat(one), _flat(other)
    return {
        key: (ours.get(key), theirs.get(key))
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key) and key.split(".")[0] not in KEYS_THAT_MAY_DIFFER | SEEDS
    }


def _flat(recipe: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {above + key: value}
    return found


def _digest(recipe: Mapping[str, Any], left_out: frozenset[str]) -> str:
    compared = {key: value for key, value in recipe.items() if key not in left_out}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:16]
