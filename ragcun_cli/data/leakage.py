"""What of a collection a model must not have been trained on, and when two texts are the same to a reader."""

from __future__ import annotations

import re

import numpy as np

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.collection import Collection
from ragcun_cli.data.text_keys import Keys, keys_of

WORD = re.compile(r"\w+")


def normalised_words(text: str) -> str:
    """The words in lower case, one space between them; the text itself if it has none."""
    return " ".join(WORD.findall(text.casefold())) or text


def answer_keys(collection: Collection) -> frozenset[bytes]:
    """Content keys of the relevant passages, with their titles and without: pairs are often made of the text alone."""
    rows = relevant_rows(collection)
    return frozenset(
        key.tobytes() for keys in (collection.corpus.keys[rows], untitled_keys(collection, rows)) for key in keys
    )


def untitled_keys(collection: Collection, rows: Numbers) -> Keys:
    """(n, KEY_BYTES) Content keys of these passages' texts without their titles."""
    return keys_of(collection.corpus.texts(rows, titles=False))


def relevant_rows(collection: Collection) -> Numbers:
    """The corpus rows of the passages that are relevant to any query."""
    found = {
        collection.corpus.row_of(passage_id)
        for grades in collection.qrels.values()
        for passage_id, grade in grades.items()
        if grade > 0
    }
    return np.array(sorted(row for row in found if row is not None), dtype=np.int64)
