"""A collection's embeddings, from the cache or through the encoder.

    <cache>/embeddings/<key>/   of trained models; the key covers weights, tokenizer, max length and precision
    <cache>/features/<key>/     of encoders without a head, and what a frozen encoder gives below its head

Texts are found by their content. So the second evaluation of a model encodes nothing, an interrupted one resumes at the
block it was in, and FEVER and Climate-FEVER, whose corpora are the same but for 25 passages, are encoded once.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ragcun_cli.arrays import Numbers, Vectors
from ragcun_cli.data.cache import key_of
from ragcun_cli.data.collection import Collection
from ragcun_cli.data.corpus import Corpus
from ragcun_cli.data.digests import Keys, keys_of
from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.evaluate.models import ScoredModel
from ragcun_cli.evaluate.vectors import PassageVectors
from ragcun_cli.evaluate.workers import Workers
from ragcun_cli.model.feature_store import BLOCK_TEXTS, features_key
from ragcun_cli.model.vector_store import VECTORS, Encoding, OnDone, VectorStore
from ragcun_cli.quantities import shown_bytes

STORES = ("embeddings", "features")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Embedded:
    """A collection's embeddings. passages: where those of all passages are. queries: (n, D) float32."""

    passages: PassageVectors
    queries: Vectors


@dataclass(frozen=True)
class _Texts:
    """Numbered texts that need not be in memory: their keys, how to read some, and how an error names one."""

    keys: Keys
    read: Callable[[Numbers], list[str]]
    label: Callable[[int], str]


class Embedder:
    """Embeds collections with one model."""

    def __init__(
        self, model: ScoredModel, cache: Path, workers: Workers | None = None, limit: int | None = None
    ) -> None:
        """Open the stores. workers: where passages are encoded, if not here. limit: bytes that all stores may take."""
        self._model = model
        self._cache = cache
        self._workers = workers
        self._limit = limit
        self._in_hand: list[Keys] = []  # what the limit must not remove, since it is or will be read
        self._kept_in_hand = 0
        self.found = 0  # texts that `vectors_of` found
        self._through_network = network_store(model, cache, self._make_room)
        self._with_head = self._through_network
        if _has_head_apart(model):
            self._with_head = _store(model, cache, "embeddings", self._make_room)

    def release(self) -> None:
        """Let go of the collections embedded so far: a limit on the cache may remove them."""
        del self._in_hand[self._kept_in_hand :]

    def embed(self, collection: Collection, on_done: OnDone = None) -> Embedded:
        """Embed all passages and queries; `on_done(count)` is called as texts are done.

        Raises:
            EnvironmentUnfit: if the disk or the limit has no room.
            ModelError: naming texts whose embedding is not finite.
        """
        queries = _query_texts(collection)
        self._reserve([queries.keys, collection.corpus.keys])
        self._fill(queries, None, on_done)
        embedded_queries = self._with_head.take(self._with_head.places(queries.keys))
        passages = _passage_texts(collection.corpus)
        self._fill(passages, collection.corpus, on_done)
        return Embedded(self._vectors(collection.corpus.keys), embedded_queries)

    def embed_texts(self, texts: Sequence[str], on_done: OnDone = None) -> PassageVectors:
        """Embed other texts, to fit a transform on; they are never let go. Must come before any collection."""
        numbered = _Texts(
            keys_of(texts),
            lambda numbers: [texts[number] for number in numbers.tolist()],
            lambda number: f"text {number}",
        )
        self._reserve([numbered.keys])
        self._fill(numbered, None, on_done)
        self._kept_in_hand = len(self._in_hand)
        return self._vectors(numbered.keys)

    @property
    def dimensions(self) -> int:
        """The dimensions of an embedding."""
        return self._with_head.dimensions

    def vectors_of(self, texts: Sequence[str], ids: Sequence[str], on_done: OnDone = None) -> Vectors:
        """Return (n, D) embeddings of these texts, in order, and let go of them; ids: how an error names them."""
        numbered = _Texts(
            keys_of(texts),
            lambda numbers: [texts[number] for number in numbers.tolist()],
            lambda number: f"text {ids[number]!r}",
        )
        self._reserve([numbered.keys])
        self.found += self._through_network.count_kept(numbered.keys)
        self._fill(numbered, None, on_done)
        vectors = self._with_head.take(self._with_head.places(numbered.keys))
        self.release()
        return vectors

    def _reserve(self, keys: list[Keys]) -> None:
        """Protect these texts and make room for all of them, before the first is encoded or removed."""
        self._in_hand += keys
        stores = {id(store): store for store in (self._through_network, self._with_head)}.values()
        self._make_room(sum(store.bytes_for(len(store.missing(each))) for store in stores for each in keys))

    def _vectors(self, keys: Keys) -> PassageVectors:
        store = self._with_head
        return PassageVectors.of_places(
            [shard / VECTORS for shard in store.shards], store.dimensions, store.places(keys)
        )

    def _fill(self, texts: _Texts, corpus: Corpus | None, on_done: OnDone) -> None:
        through_network = self._through_network
        elsewhere = None
        if self._workers is not None and corpus is not None:
            elsewhere = _elsewhere(self._workers, corpus, on_done)
        through_network.fill(texts.keys, _network_encoding(self._model, texts), on_done, elsewhere)
        if self._with_head is not through_network:
            encoder, places = self._model.encoder, through_network.places(texts.keys)
            head = Encoding(
                lambda numbers: through_network.take(places[numbers]),
                lambda features, _: encoder.project(torch.from_numpy(features).to(encoder.device)),
                texts.label,
            )
            self._with_head.fill(texts.keys, head)
        self._make_room(0)  # the limit applies even if nothing had to be written

    def _make_room(self, needed: int) -> None:
        """Remove the least recently used shards, never those of the texts in hand."""
        if self._limit is None:
            return
        in_use = {
            shard
            for store in (self._through_network, self._with_head)
            for keys in self._in_hand
            for shard in store.shards_of(keys)
        }
        sizes = {
            shard: sum(path.stat().st_size for path in shard.iterdir())
            for name in STORES
            for shard in (self._cache / name).glob("*/*")
            if shard.is_dir() and not shard.name.startswith(".")
        }
        own = sum(sizes.get(shard, 0) for shard in in_use)
        if needed and own + needed > self._limit:
            alone, limit = shown_bytes(own + needed), shown_bytes(self._limit)
            raise EnvironmentUnfit(
                f"--cache-limit: these texts alone take {alone}, but the limit is {limit}",
                "Give a larger limit: the search reads the embeddings from the cache.",
            )
        total = sum(sizes.values())
        for shard in sorted(sizes.keys() - in_use, key=lambda each: each.stat().st_mtime):
            if total + needed <= self._limit:
                return
            shutil.rmtree(shard)
            total -= sizes[shard]


class BlockEncoder:
    """What a worker holds: the model, and the store it writes to."""

    def __init__(self, model: ScoredModel, cache: Path) -> None:
        self._model = model
        self._store = network_store(model, cache)
        self._corpora: dict[Path, _Texts] = {}
        self.device = str(model.encoder.device)

    def encode(self, path: Path, index: Path, label: str, block: Numbers) -> int:
        """Encode these passages of a corpus and write their shard; return how many there are."""
        if index not in self._corpora:
            self._corpora = {index: _passage_texts(Corpus(path, index, label))}
        texts = self._corpora[index]
        self._store.write_blocks([block], texts.keys, _network_encoding(self._model, texts))
        return len(block)


def network_store(model: ScoredModel, cache: Path, make_room: Callable[[int], None] | None = None) -> VectorStore:
    """Return the store of network outputs: a frozen encoder's features, which others share, or embeddings."""
    return _store(model, cache, "features" if _shares_features(model) else "embeddings", make_room)


def _elsewhere(workers: Workers, corpus: Corpus, on_done: OnDone) -> Callable[[list[Numbers]], None]:
    def write(blocks: list[Numbers]) -> None:
        tasks = ((corpus.path, corpus.index, corpus.label, block) for block in blocks)
        workers.each(BlockEncoder.encode, tasks, on_done)

    return write


def _query_texts(collection: Collection) -> _Texts:
    return _Texts(
        keys_of(collection.queries),
        lambda numbers: [collection.queries[number] for number in numbers.tolist()],
        lambda number: f"query {collection.query_ids[number]!r}",
    )


def _passage_texts(corpus: Corpus) -> _Texts:
    """Return the passages in the file's order, so that it is read from front to back."""
    order = corpus.rows_in_file_order()
    return _Texts(
        corpus.keys[order],
        lambda numbers: corpus.texts(order[numbers]),
        lambda number: f"passage {corpus.id_of(int(order[number]))!r}",
    )


def _network_encoding(model: ScoredModel, texts: _Texts) -> Encoding:
    encoder, with_head = model.encoder, not _shares_features(model)

    def encode(tokens: TokenBatch, on_done: OnDone) -> Vectors:
        with passes(model):
            features = encoder.features_of_tokens(tokens, on_done)
            return encoder.project(features) if with_head else features.float().cpu().numpy()

    return Encoding(lambda numbers: encoder.tokenize(texts.read(numbers)), encode, texts.label)


def _shares_features(model: ScoredModel) -> bool:
    return model.frozen or isinstance(model.encoder.head, nn.Identity)


def _has_head_apart(model: ScoredModel) -> bool:
    return _shares_features(model) and not isinstance(model.encoder.head, nn.Identity)


def _store(model: ScoredModel, cache: Path, kind: str, make_room: Callable[[int], None] | None = None) -> VectorStore:
    encoder, precision = model.encoder, model.entry.precision
    key, dimensions = features_key(encoder, precision), encoder.hidden_size
    if kind == "embeddings":
        key, dimensions = key_of(features=key, head=encoder.head_digest()), encoder.settings.output_dim
    return VectorStore(cache / kind / key, dimensions, BLOCK_TEXTS[encoder.device.type], make_room)


def passes(model: ScoredModel) -> contextlib.AbstractContextManager[Any]:
    """Return a context for passes through the network in the precision that the model was opened with."""
    if model.entry.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(model.encoder.device.type, AUTOCAST[model.entry.precision])
