"""Encoder dimensions that determine its cost: layers, width, vocabulary."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ragcun_cli.files import expanded


@dataclass(frozen=True)
class EncoderShape:
    """Number of layers, their width and the width of the feed-forward part. known: False if assumed."""

    layers: int
    width: int
    inner: int
    vocabulary: int = 30_522
    positions: int = 512
    known: bool = True

    @property
    def weights(self) -> int:
        """Number of weights in the layers' matrices: four for attention and two for the feed-forward part each."""
        return self.layers * (4 * self.width**2 + 2 * self.width * self.inner)

    @property
    def parameters(self) -> int:
        """Weights plus word and position tables; biases and norms (1 % or less) are not counted."""
        return self.weights + (self.vocabulary + self.positions) * self.width

    def flop(self, tokens: float) -> float:
        """FLOP to encode one text: 2 per weight and token, plus 4 x width x length per token and layer for attention.

        Training takes three times as much (PaLM, arXiv 2204.02311, Appendix B).
        """
        return tokens * (2 * self.weights + 4 * self.layers * self.width * tokens)


BASE = EncoderShape(12, 768, 3072)
MINILM = EncoderShape(6, 384, 1536)
SHAPES = {
    "sentence-transformers/all-mpnet-base-v2": BASE,
    "sentence-transformers/all-MiniLM-L6-v2": MINILM,
    "embedded:all-MiniLM-L6-v2": MINILM,
}


def shape_of(base_model: str) -> EncoderShape:
    """Return the shape of a known encoder or of a folder's config.json, else BERT-base's with known=False."""
    if base_model in SHAPES:
        return SHAPES[base_model]
    try:
        config = json.loads((expanded(base_model) / "config.json").read_text(encoding="utf-8"))
        return EncoderShape(
            config["num_hidden_layers"],
            config["hidden_size"],
            config["intermediate_size"],
            config.get("vocab_size", BASE.vocabulary),
            config.get("max_position_embeddings", BASE.positions),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return EncoderShape(BASE.layers, BASE.width, BASE.inner, known=False)
