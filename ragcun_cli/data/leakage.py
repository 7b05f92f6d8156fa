"""Whether two texts are the same to a reader: by their words, whatever case, punctuation and spaces."""

from __future__ import annotations

import re

WORD = re.compile(r"\w+")


def words_of(text: str) -> str:
    """The words in lower case, one space between them; the text itself if it has none."""
    return " ".join(WORD.findall(text.casefold())) or text
