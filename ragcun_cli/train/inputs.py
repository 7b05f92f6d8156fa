"""From text numbers to what the encoder takes: tokens, or for a frozen encoder the features it gave before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ragcun_cli.data.token_cache import TokenisedTexts
from ragcun_cli.data.tokens import TokenBatch, TokenIds
from ragcun_cli.evaluate.scoring import Encode
from ragcun_cli.model.encoder import FeatureBatch, IsotropicGaussianEncoder
from ragcun_cli.model.feature_store import FeatureStore

Numbers = npt.NDArray[np.int64]
EncoderInput = TokenBatch | FeatureBatch
MakeInput = Callable[[Numbers], EncoderInput]


def features_of(store: FeatureStore, texts: Sequence[str], needed: Numbers) -> Callable[[Numbers], FeatureBatch]:
    """Inputs for a frozen encoder, of those text numbers that are needed; the store has them."""
    places = np.full((len(texts), 2), -1, dtype=np.int64)
    places[needed] = store.places([texts[number] for number in needed.tolist()])
    return lambda numbers: FeatureBatch(store.take(places[numbers]))


def tokens_of(sources: Sequence[tuple[Sequence[str], TokenisedTexts]]) -> Callable[[Sequence[str]], TokenBatch]:
    """A tokenizer for texts that are tokenised already: those of the sources."""
    places = {text: (source, number) for source, (texts, _) in enumerate(sources) for number, text in enumerate(texts)}

    def lookup(wanted: Sequence[str]) -> TokenBatch:
        found = np.array([places[text] for text in wanted], dtype=np.int64).reshape(-1, 2)
        lengths = np.empty(len(wanted), dtype=np.int64)
        pieces: list[TokenIds] = [np.empty(0, dtype=np.uint16)] * len(wanted)
        for source, (_, tokens) in enumerate(sources):
            here = np.flatnonzero(found[:, 0] == source)
            batch = tokens.batch(found[here, 1])
            lengths[here] = batch.lengths
            for place, piece in zip(here.tolist(), np.split(batch.ids, np.cumsum(batch.lengths)[:-1]), strict=False):
                pieces[place] = piece
        return TokenBatch(np.concatenate(pieces) if pieces else np.empty(0, dtype=np.uint16), lengths)

    return lookup


def encode_tokens(encoder: IsotropicGaussianEncoder, lookup: Callable[[Sequence[str]], TokenBatch]) -> Encode:
    """`encoder.encode` for texts that are tokenised already: a dev set is scored many times in a run."""
    return lambda texts: encoder.project(encoder.features_of_tokens(lookup(texts)))
