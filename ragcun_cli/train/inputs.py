"""From text numbers to what the encoder takes: tokens, or for a frozen encoder the features it gave before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.numbered_texts import NumberedTexts
from ragcun_cli.data.token_cache import TokenisedTexts
from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.evaluate.scoring import Encode
from ragcun_cli.model.encoder import FeatureBatch, IsotropicGaussianEncoder
from ragcun_cli.model.feature_store import FeatureStore

EncoderInput = TokenBatch | FeatureBatch
MakeInput = Callable[[Numbers], EncoderInput]


def features_of(store: FeatureStore, texts: NumberedTexts, needed: Numbers) -> Callable[[Numbers], FeatureBatch]:
    """Inputs for a frozen encoder, of those texts that are needed, by number; the store has them."""
    places = np.full((len(texts.keys), 2), -1, dtype=np.int64)
    places[needed] = store.places(texts.keys[needed])
    return lambda numbers: FeatureBatch(store.take(places[numbers]))


def tokens_by_text(texts: Sequence[str], tokens: TokenisedTexts) -> Callable[[Sequence[str]], TokenBatch]:
    """A tokenizer for texts that are tokenised already; for as many as fit into memory, such as a dev set's."""
    number_of = {text: number for number, text in enumerate(texts)}
    return lambda wanted: tokens.batch(np.array([number_of[text] for text in wanted], dtype=np.int64))


def encode_tokens(encoder: IsotropicGaussianEncoder, lookup: Callable[[Sequence[str]], TokenBatch]) -> Encode:
    """`encoder.encode` for texts that are tokenised already: a dev set is scored many times in a run."""
    return lambda texts: encoder.project(encoder.features_of_tokens(lookup(texts)))


def encode_features(store: FeatureStore, lookup: Callable[[Sequence[str]], TokenBatch]) -> Encode:
    """The same for a frozen encoder, by what it gave before."""
    return lambda texts: store.encode(
        NumberedTexts.of(texts, lambda numbers: lookup([texts[number] for number in numbers.tolist()]))
    )
