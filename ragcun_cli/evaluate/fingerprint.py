"""What decides a result's figures. No torch here: a report compares results with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragcun_cli.data.cache import key_of

FORMAT = 3  # of a result, and of how its figures are computed
IDENTIFYING = ("identity", "max_length", "output_dim", "precision", "similarity", "transform", "fit_sha256")


def fingerprint(model: Mapping[str, Any], dataset_sha256: str, split: str) -> str:
    """Two results with the same one must be equal."""
    return key_of(
        format=FORMAT,
        dataset=dataset_sha256,
        split=split,
        tokenizer=model["tokenizer_sha256"],
        **{key: model[key] for key in IDENTIFYING},
    )
