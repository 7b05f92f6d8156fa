"""From a batch's texts to what the encoder takes: tokens, or for a frozen encoder the features it gave before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ragcun_cli.data.batches import TripleBatch
from ragcun_cli.losses.objective import TripleEmbeddings
from ragcun_cli.model.encoder import Embeddings, FeatureBatch, IsotropicGaussianEncoder, TokenBatch

EncoderInput = TokenBatch | FeatureBatch
MakeInput = Callable[[Sequence[str]], EncoderInput]


@dataclass(frozen=True)
class KnownFeatures:
    """Distinct texts and their features (n, hidden_size) float32."""

    texts: list[str]
    features: Tensor


class FeatureCache:
    """Pooled features by text: each distinct text passes the frozen encoder once, however often it is asked for."""

    def __init__(self, encoder: IsotropicGaussianEncoder, known: KnownFeatures) -> None:
        self._encoder = encoder
        self._rows = {text: row for row, text in enumerate(known.texts)}
        self._features = known.features

    def fill(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> None:
        """Encode those of the texts that are new."""
        new = list(dict.fromkeys(text for text in texts if text not in self._rows))
        if not new:
            return
        self._features = torch.cat([self._features, self._encoder.features(new, on_done)])
        self._rows.update({text: len(self._rows) + place for place, text in enumerate(new)})

    def features(self, texts: Sequence[str]) -> Tensor:
        """(n, hidden_size) float32 of these texts."""
        self.fill(texts)
        return self._features[[self._rows[text] for text in texts]]

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Embeddings with the head as it is now."""
        return self._encoder.project(self.features(texts))


def from_tokens(encoder: IsotropicGaussianEncoder) -> MakeInput:
    """Inputs for an encoder that trains."""
    return lambda texts: TokenBatch(encoder.tokenize(texts))


def from_features(cache: FeatureCache) -> MakeInput:
    """Inputs for an encoder that is frozen."""
    return lambda texts: FeatureBatch(cache.features(texts))


def embed(model: Callable[[EncoderInput], Tensor], make_input: MakeInput, batch: TripleBatch) -> TripleEmbeddings:
    """Queries, positives and negatives in one pass, so that short and long texts share the sorted chunks."""
    embeddings = model(make_input(batch.texts()))
    size = len(batch.queries)
    queries, positives, negatives = embeddings.split([size, size, len(batch.negatives)])
    owners = torch.tensor(batch.negative_owners, dtype=torch.long, device=embeddings.device)
    return TripleEmbeddings(queries, positives, negatives, owners)
