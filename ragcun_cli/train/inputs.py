"""From text numbers to what the encoder takes: tokens, or for a frozen encoder the features it gave before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ragcun_cli.data.token_cache import TokenisedTexts
from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.evaluate.scoring import Encode
from ragcun_cli.model.encoder import Embeddings, FeatureBatch, IsotropicGaussianEncoder
from ragcun_cli.model.feature_store import FeatureStore

Numbers = npt.NDArray[np.int64]
EncoderInput = TokenBatch | FeatureBatch
MakeInput = Callable[[Numbers], EncoderInput]


def features_of(store: FeatureStore, texts: Sequence[str], needed: Numbers) -> Callable[[Numbers], FeatureBatch]:
    """Inputs for a frozen encoder, of those text numbers that are needed; the store has them."""
    places = np.full((len(texts), 2), -1, dtype=np.int64)
    places[needed] = store.places([texts[number] for number in needed.tolist()])
    return lambda numbers: FeatureBatch(store.take(places[numbers]))


def encode_tokenised(encoder: IsotropicGaussianEncoder, texts: Sequence[str], tokens: TokenisedTexts) -> Encode:
    """`encoder.encode` for texts that are tokenised already: a dev set is scored many times in a run."""
    numbers = {text: number for number, text in enumerate(texts)}

    def encode(wanted: Sequence[str]) -> Embeddings:
        rows = np.array([numbers[text] for text in wanted], dtype=np.int64)
        return encoder.project(encoder.features_of_tokens(tokens.batch(rows)))

    return encode
