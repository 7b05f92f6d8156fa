"""When two recipes train the same arm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Keys that change where or how often something is written, or how the work is divided, not what is trained.
KEYS_THAT_MAY_DIFFER = frozenset(
    {
        "output_dir", "description", "log_every", "trackers",
        "save_every", "save_every_minutes", "keep_last", "keep_models", "backup", "parallel", "chunk_tokens",
    }
)  # fmt: skip
SEEDS = frozenset({"seed", "seeds"})
TERMS = frozenset({"name", "isotropy", "lambda_isotropy", "lambda_reg", "isotropy_options"})


def digest_but_seed(recipe: Mapping[str, Any]) -> str:
    """Equal for two runs that differ in nothing but their seed: only such may be folded into a mean over seeds."""
    return _digest(recipe, KEYS_THAT_MAY_DIFFER | SEEDS)


def digest_but_terms(recipe: Mapping[str, Any]) -> str:
    """Equal for two arms that differ in nothing but the isotropy and variance terms of the loss, and the seed."""
    return _digest(recipe, KEYS_THAT_MAY_DIFFER | SEEDS | TERMS)


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What of two recipes differs but for the seed and the keys that may differ; keys below others with a dot."""
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
