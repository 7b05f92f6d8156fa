"""What a frozen encoder gives for a text, computed once and kept on disk: pooled features, before the head.

`<cache>/features/<key>/`, the key covering the encoder's weights, its tokenizer, the length that texts are cut to,
whether features are normalised, the device's kind and the precision. Arms, seeds and evaluations of one encoder find
each other's vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ragcun_cli.data.cache import key_of
from ragcun_cli.data.text_keys import keys_of
from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.model.encoder import Embeddings, IsotropicGaussianEncoder
from ragcun_cli.model.vector_store import FORMAT, Encoding, VectorStore

# Texts that are encoded together and make a shard: what an interruption costs at most, 6 to 20 s on two cores. A GPU
# needs more, to fill its passes with texts of one length.
BLOCK_TEXTS = {"cpu": 512, "mps": 4096, "cuda": 16_384}
TEXTS_PROJECTED = 65_536  # at a time: their features need not all be in memory
LABEL_CHARACTERS = 60

Tokenise = Callable[[Sequence[str]], TokenBatch]


class FeatureStore:
    """Pooled features by text; each distinct text passes the encoder once, whoever asks."""

    def __init__(self, encoder: IsotropicGaussianEncoder, cache: Path, tokenise: Tokenise | None = None) -> None:
        """`tokenise`: where texts' tokens come from, if not from the encoder's own tokenizer."""
        self._encoder = encoder
        self._tokenise = tokenise or encoder.tokenize
        folder = cache / "features" / features_key(encoder)
        self.vectors = VectorStore(folder, encoder.hidden_size, BLOCK_TEXTS[encoder.device.type])

    def fill(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> None:
        """Encode those of the texts that no whole shard has.

        `on_done(count)` is called as texts are there, those found at once.

        Raises:
            EnvironmentUnfit: if the disk has no room for them.
        """
        # Longest first, so that each block's texts share their passes with texts of their length.
        distinct = sorted(dict.fromkeys(texts), key=len, reverse=True)
        encoding = Encoding(
            lambda numbers: self._tokenise([distinct[number] for number in numbers.tolist()]),
            lambda tokens, done: self._encoder.features_of_tokens(tokens, done).cpu().numpy(),
            lambda number: repr(distinct[number][:LABEL_CHARACTERS]),
        )
        self.vectors.fill(keys_of(distinct), encoding, on_done)

    def count_missing(self, texts: Sequence[str]) -> int:
        """How many distinct texts `fill` would encode, if every shard is whole."""
        return len(self.vectors.missing(keys_of(texts)))

    def places(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Shard and row of each text, (n, 2), to be given to `take`; `fill` has been called with the texts."""
        return self.vectors.places(keys_of(texts))

    def take(self, places: npt.NDArray[np.int64]) -> Tensor:
        """Features (n, hidden_size) float32 on the encoder's device."""
        return torch.from_numpy(self.vectors.take(places)).to(self._encoder.device)

    def features(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Tensor:
        """(n, hidden_size) float32 of these texts, encoding those that are new."""
        self.fill(texts, on_done)
        return self.take(self.places(texts))

    def encode(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Embeddings:
        """Embeddings with the head as it is now, (n, output_dim) float32."""
        self.fill(texts, on_done)
        embeddings = np.empty((len(texts), self._encoder.settings.output_dim), dtype=np.float32)
        for start in range(0, len(texts), TEXTS_PROJECTED):
            part = slice(start, start + TEXTS_PROJECTED)
            embeddings[part] = self._encoder.project(self.take(self.places(texts[part])))
        return embeddings


def features_key(encoder: IsotropicGaussianEncoder, precision: str = "float32") -> str:
    """What decides a text's features. Training always takes float32, so that arms, seeds and evaluation share them."""
    return key_of(
        format=FORMAT,
        network=encoder.network_digest(),
        tokenizer=encoder.text_tokenizer.digest,
        max_length=encoder.settings.max_length,
        unit_norm=encoder.settings.unit_norm_features,
        precision=precision,
        device=encoder.device.type,
    )
