"""Pooled features of a frozen encoder, before the head, computed once per text and kept on disk.

`<cache>/features/<key>/`, the key covering the encoder's weights, its tokenizer, the length that texts are cut to,
whether features are normalised, the device's kind and the precision. Arms, seeds and evaluations of one encoder use
each other's vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ragcun_cli.arrays import Numbers, Vectors
from ragcun_cli.data.cache import key_of
from ragcun_cli.data.digests import Keys
from ragcun_cli.data.tokens import NumberedTexts
from ragcun_cli.model.encoder import IsotropicGaussianEncoder
from ragcun_cli.model.vector_store import FORMAT, Encoding, VectorStore

# Texts that are encoded together and make a shard: the most an interruption costs, 6 to 20 s on two cores. A GPU
# needs more, to fill its passes with texts of one length.
BLOCK_TEXTS = {"cpu": 512, "mps": 4096, "cuda": 16_384}
TEXTS_PROJECTED = 65_536  # at a time: their features need not all be in memory


class FeatureStore:
    """Pooled features by text; each distinct text is encoded once, whoever asks."""

    def __init__(self, encoder: IsotropicGaussianEncoder, cache: Path) -> None:
        self._encoder = encoder
        folder = cache / "features" / features_key(encoder)
        self.vectors = VectorStore(folder, encoder.hidden_size, BLOCK_TEXTS[encoder.device.type])

    def fill(self, texts: NumberedTexts, on_done: Callable[[int], None] | None = None) -> None:
        """Encode those of the texts that no intact shard has, in the order given: long ones first fill passes best.

        `on_done(count)` is called as texts are done, for found ones at once.

        Raises:
            EnvironmentUnfit: if the disk has no room for them.
        """
        self.vectors.fill(texts.keys, self._encoding(texts), on_done)

    def fill_part(self, texts: NumberedTexts, part: int, parts: int) -> None:
        """Encode every `parts`-th block of missing texts, from `part` on; other processes encode the rest meanwhile."""
        blocks = self.vectors.missing_blocks(texts.keys)[part::parts]
        self.vectors.write_blocks(blocks, texts.keys, self._encoding(texts))

    def _encoding(self, texts: NumberedTexts) -> Encoding:
        return Encoding(
            texts.tokens,
            lambda tokens, done: self._encoder.features_of_tokens(tokens, done).cpu().numpy(),
            texts.label,
        )

    def count_missing(self, texts: NumberedTexts) -> int:
        """Count the distinct texts that `fill` would encode if every shard were intact."""
        return len(self.vectors.missing(texts.keys))

    def places(self, keys: Keys) -> Numbers:
        """Return shard and row of each text, (n, 2), for `take`; `fill` must have been called with the texts."""
        return self.vectors.places(keys)

    def take(self, places: Numbers) -> Tensor:
        """Features (n, hidden_size) float32 on the encoder's device."""
        return torch.from_numpy(self.vectors.take(places)).to(self._encoder.device)

    def features(self, texts: NumberedTexts) -> Tensor:
        """Return features (n, hidden_size) float32 of these texts, encoding those that are new."""
        self.fill(texts)
        return self.take(self.places(texts.keys))

    def encode(self, texts: NumberedTexts, on_done: Callable[[int], None] | None = None) -> Vectors:
        """Return embeddings with the current head, (n, output_dim) float32."""
        self.fill(texts, on_done)
        places = self.places(texts.keys)
        embeddings = np.empty((len(places), self._encoder.settings.output_dim), dtype=np.float32)
        for start in range(0, len(places), TEXTS_PROJECTED):
            part = slice(start, start + TEXTS_PROJECTED)
            embeddings[part] = self._encoder.project(self.take(places[part]))
        return embeddings


def features_key(encoder: IsotropicGaussianEncoder, precision: str = "float32") -> str:
    """Return a digest of what decides features. Training uses float32 so that arms, seeds and evaluation share them."""
    return key_of(
        format=FORMAT,
        network=encoder.network_digest(),
        tokenizer=encoder.text_tokenizer.digest,
        max_length=encoder.settings.max_length,
        unit_norm=encoder.settings.unit_norm_features,
        precision=precision,
        device=encoder.device.type,
    )
