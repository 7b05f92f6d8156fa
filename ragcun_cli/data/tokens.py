"""Texts as token ids, one after the other without padding; and texts by number, whose tokens are made on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.digests import KEY_BYTES, Keys, keys_of

TokenIds = npt.NDArray[np.integer]
LABEL_CHARACTERS = 60
TEXTS_HASHED = 65_536  # at a time


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of n texts.

    ids: (total tokens,), all texts concatenated, including special tokens. lengths: (n,) int64, each >= 1.
    """

    ids: TokenIds
    lengths: Numbers

    @classmethod
    def of(cls, token_ids: Sequence[Sequence[int]]) -> TokenBatch:
        """Make a batch from one list of ids per text."""
        lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
        flat = [token for ids in token_ids for token in ids]
        return cls(np.array(flat, dtype=np.int64), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, texts: Numbers) -> TokenBatch:
        """These texts, in this order."""
        ends = np.cumsum(self.lengths)
        starts = ends - self.lengths
        pieces = [self.ids[starts[text] : ends[text]] for text in texts]
        return TokenBatch(np.concatenate(pieces) if pieces else self.ids[:0], self.lengths[texts])


def chunks_within(lengths: Numbers, tokens: int | None) -> Iterator[Numbers]:
    """Yield text numbers in chunks of at most `tokens` tokens, longest first; None gives a single chunk.

    Longest first, so that if the first chunk fits in memory, all do. A text above the limit forms its own chunk.
    """
    order = np.argsort(-lengths, kind="stable")
    if tokens is None:
        yield order
        return
    start = total = 0
    for place, length in enumerate(lengths[order].tolist()):
        if place > start and total + length > tokens:
            yield order[start:place]
            start, total = place, 0
        total += length
    if start < len(order):
        yield order[start:]


@dataclass(frozen=True)
class NumberedTexts:
    """A set of n texts. keys: (n,); tokens(numbers): their tokens; label(number): a text's name in errors."""

    keys: Keys
    tokens: Callable[[Numbers], TokenBatch]
    label: Callable[[int], str]

    @classmethod
    def of(cls, texts: Sequence[str], tokens: Callable[[Numbers], TokenBatch]) -> NumberedTexts:
        """Make one from a sequence, which may be memory-mapped."""
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
