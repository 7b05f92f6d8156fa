"""Texts of realistic length for benchmarks: made-up sentences of a model's own words, common ones more often.

Their lengths follow MS MARCO's: queries of some 8 words, passages of some 58 with a long tail. Words are drawn by
Zipf's law from MiniLM's vocabulary, whose ids run from frequent to rare, so they cut into as many tokens as prose.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

FIRST_WORD, LAST_WORD = 1996, 29_000  # the vocabulary's whole words; before them single characters
LONGEST_PASSAGE = 160  # words


class Writer:
    """Draws texts from one seeded generator."""

    def __init__(self, vocabulary: Path, seed: int) -> None:
        words = vocabulary.read_text(encoding="utf-8").split("\n")[FIRST_WORD:LAST_WORD]
        self.words = [word for word in words if len(word) > 1 and word.isascii() and word.isalpha()]
        rarity = 1 / (np.arange(len(self.words)) + 3.7)
        self.probabilities: npt.NDArray[np.float64] = rarity / rarity.sum()
        self.random = np.random.default_rng(seed)

    def text(self, words: int) -> str:
        """A sentence of so many words, some of them compounds or numbers, some with punctuation."""
        drawn = [self.words[number] for number in self.random.choice(len(self.words), words, p=self.probabilities)]
        kinds = self.random.random(words)
        marks = self.random.choice(["", ",", ".", ";"], words, p=[0.91, 0.04, 0.04, 0.01])
        return " ".join(self._word(*each) for each in zip(drawn, kinds.tolist(), marks.tolist(), strict=True))

    def _word(self, word: str, kind: float, mark: str) -> str:
        if kind < 0.06:
            word += self.words[int(self.random.integers(len(self.words)))][:4]
        elif kind < 0.08:
            word = str(self.random.integers(1, 2030))
        return word + mark

    def query(self) -> str:
        """Some 8 words."""
        return self.text(int(np.clip(round(self.random.normal(8, 2.5)), 3, 20)))

    def passage(self) -> str:
        """Some 58 words, half of them between 38 and 75."""
        words = self.random.lognormal(np.log(60) - 0.125, 0.5)
        return self.text(int(np.clip(round(words), 8, LONGEST_PASSAGE)))

    def triples(self, count: int) -> list[dict[str, str]]:
        """Query, positive and negative."""
        return [{"query": self.query(), "positive": self.passage(), "negative": self.passage()} for _ in range(count)]
