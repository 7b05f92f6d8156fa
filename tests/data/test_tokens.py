"""Tokens in a row, and in chunks."""

from __future__ import annotations

import numpy as np
import pytest

from ragcun_cli.data.tokens import TokenBatch, chunks_within

LENGTHS = [3, 1, 7, 7, 2, 40, 5, 1]
BATCH = TokenBatch.of([[100 * text + place for place in range(length)] for text, length in enumerate(LENGTHS)])


def test_a_selection_keeps_texts_whole_and_in_the_order_asked() -> None:
    some = BATCH.select(np.array([6, 0, 7]))
    assert some.ids.tolist() == [600, 601, 602, 603, 604, 0, 1, 2, 700]
    assert some.lengths.tolist() == [5, 3, 1]
    assert len(BATCH.select(np.array([], dtype=np.int64))) == 0


@pytest.mark.parametrize("tokens", [1, 8, 14, 41, 1000, None])
def test_chunks_name_every_text_once_and_keep_the_limit(tokens: int | None) -> None:
    chunks = list(chunks_within(BATCH.lengths, tokens))
    assert sorted(np.concatenate(chunks).tolist()) == list(range(len(LENGTHS)))
    for chunk in chunks:
        assert tokens is None or len(chunk) == 1 or BATCH.lengths[chunk].sum() <= tokens
    longest_first = [BATCH.lengths[chunk].max() for chunk in chunks]
    assert longest_first == sorted(longest_first, reverse=True)
