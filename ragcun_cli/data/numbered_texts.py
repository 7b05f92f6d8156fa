"""Texts by number that need not be in memory: their content hashes, and how the tokens of some are had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.text_keys import KEY_BYTES, Keys, keys_of
from ragcun_cli.data.tokens import TokenBatch

LABEL_CHARACTERS = 60
TEXTS_HASHED = 65_536  # at a time


@dataclass(frozen=True)
class NumberedTexts:
    """n texts. keys: (n,); tokens(numbers): their tokens; label(number): what an error calls one."""

    keys: Keys
    tokens: Callable[[Numbers], TokenBatch]
    label: Callable[[int], str]

    @classmethod
    def of(cls, texts: Sequence[str], tokens: Callable[[Numbers], TokenBatch]) -> NumberedTexts:
        """Of a sequence, which may be memory-mapped."""
        parts = [keys_of(texts[start : start + TEXTS_HASHED]) for start in range(0, len(texts), TEXTS_HASHED)]
        keys = np.concatenate(parts) if parts else np.empty(0, dtype=f"V{KEY_BYTES}")
        return cls(keys, tokens, lambda number: repr(texts[number][:LABEL_CHARACTERS]))

    def select(self, numbers: Numbers) -> NumberedTexts:
        """These texts, in this order."""
        return NumberedTexts(
            self.keys[numbers],
            lambda some: self.tokens(numbers[some]),
            lambda number: self.label(int(numbers[number])),
        )
