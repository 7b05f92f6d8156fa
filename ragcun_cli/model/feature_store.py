"""What a frozen encoder gives for a text, computed once and kept on disk.

`<cache>/features/<key>/`, the key covering the encoder's weights, its tokenizer, the length that texts are cut to,
whether features are normalised, the device's kind and the precision. In it are shards, each whole or absent:

    <name>/keys.npy       (n, 16) uint8, blake2b of each text
    <name>/features.npy   (n, hidden_size) float32, memory-mapped
    <name>/manifest.json  digests of both

Arms, seeds and evaluations of one encoder find each other's shards; a run that is interrupted goes on at the shard.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ragcun_cli import files
from ragcun_cli.console import note
from ragcun_cli.data.cache import key_of, only_writer
from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.manifest import problem_with, seal
from ragcun_cli.model.encoder import Embeddings, IsotropicGaussianEncoder

FORMAT = 1
KEY_BYTES = 16
# A shard is written after so many seconds or texts: what an interruption costs at most, without a file for every few.
SHARD_SECONDS = 60.0
SHARD_TEXTS = 65_536
BLOCK_TEXTS = 2048  # texts that are encoded together: the same ones whatever was interrupted before

Keys = npt.NDArray[np.void]  # (n,) of KEY_BYTES each
Features = npt.NDArray[np.float32]
Tokenise = Callable[[Sequence[str]], TokenBatch]


class FeatureStore:
    """Pooled features by text; each distinct text passes the encoder once, whoever asks."""

    def __init__(self, encoder: IsotropicGaussianEncoder, cache: Path, tokenise: Tokenise | None = None) -> None:
        """`tokenise`: where texts' tokens come from, if not from the encoder's own tokenizer."""
        self._encoder = encoder
        self._tokenise = tokenise or encoder.tokenize
        self.folder = cache / "features" / _store_key(encoder)
        self._shards: list[Path] = []
        self._opened: dict[int, Features] = {}  # shards found whole, memory-mapped
        # Sorted keys of all shards, and for each where its features are: shard and row.
        self._keys: Keys = np.empty(0, dtype=f"V{KEY_BYTES}")
        self._places: npt.NDArray[np.int64] = np.empty((0, 2), dtype=np.int64)
        self._index()

    def fill(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> None:
        """Encode those of the texts that no whole shard has.

        `on_done(count)` is called as texts are there, those found at once.

        Raises:
            EnvironmentUnfit: if the disk has no room for them.
        """
        distinct = list(dict.fromkeys(texts))
        if not self._missing(distinct) and not self._damaged(distinct):
            return _call(on_done, len(distinct))
        with only_writer(self.folder):
            files.sweep_leftovers(self.folder)
            self._index()  # another process may have filled it meanwhile
            for shard in self._damaged(distinct):
                shutil.rmtree(shard)
            self._index()
            missing = self._missing(distinct)
            self._require_room(missing)
            _call(on_done, len(distinct) - len(missing))
            # Longest first, so that each block's texts share their passes with texts of their length.
            missing.sort(key=len, reverse=True)
            self._write(missing, on_done)
            self._index()
            if self._damaged(distinct):
                raise EnvironmentUnfit(f"{self.folder}: the disk does not keep what is written", "Check the disk.")
        return None

    def count_missing(self, texts: Sequence[str]) -> int:
        """How many distinct texts `fill` would encode, if every shard is whole."""
        return len(self._missing(list(dict.fromkeys(texts))))

    def bytes_missing(self, texts: Sequence[str]) -> int:
        """What `fill` would write."""
        return self.count_missing(texts) * (4 * self._encoder.hidden_size + KEY_BYTES)

    def places(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Shard and row of each text, (n, 2), to be given to `take`; `fill` has been called with the texts."""
        return self._places[np.searchsorted(self._keys, keys_of(texts))]

    def take(self, places: npt.NDArray[np.int64]) -> Tensor:
        """Features (n, hidden_size) float32 on the encoder's device."""
        features = np.empty((len(places), self._encoder.hidden_size), dtype=np.float32)
        for shard in np.unique(places[:, 0]).tolist():
            here = places[:, 0] == shard
            features[here] = self._opened[shard][places[here, 1]]
        return torch.from_numpy(features).to(self._encoder.device)

    def features(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Tensor:
        """(n, hidden_size) float32 of these texts, encoding those that are new."""
        self.fill(texts, on_done)
        return self.take(self.places(texts))

    def encode(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Embeddings:
        """Embeddings with the head as it is now, (n, output_dim) float32."""
        self.fill(texts, on_done)
        embeddings = np.empty((len(texts), self._encoder.settings.output_dim), dtype=np.float32)
        for start in range(0, len(texts), SHARD_TEXTS):
            part = slice(start, start + SHARD_TEXTS)
            embeddings[part] = self._encoder.project(self.take(self.places(texts[part])))
        return embeddings

    def free_bytes(self) -> int:
        """What the disk with the store has left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free

    def _missing(self, distinct: list[str]) -> list[str]:
        keys = keys_of(distinct)
        places = np.searchsorted(self._keys, keys)
        known = np.zeros(len(distinct), dtype=bool)
        inside = places < len(self._keys)
        known[inside] = self._keys[places[inside]] == keys[inside]
        return [text for text, is_known in zip(distinct, known.tolist(), strict=True) if not is_known]

    def _damaged(self, distinct: list[str]) -> list[Path]:
        """Of the shards that have some of the texts, those that are not as they were written; opens the others.

        Only shards that are asked for are read whole: the store may hold more than fits into memory.
        """
        missing = set(self._missing(distinct))
        places = self.places([text for text in distinct if text not in missing])
        damaged = []
        for number in np.unique(places[:, 0]).tolist():
            if number in self._opened:
                continue
            shard = self._shards[number]
            if problem := problem_with(shard):
                note(f"{shard}: {problem}; its texts are encoded again.")
                damaged.append(shard)
            else:
                self._opened[number] = np.load(shard / "features.npy", mmap_mode="r")
        return damaged

    def _write(self, texts: list[str], on_done: Callable[[int], None] | None) -> None:
        started, first = time.monotonic(), 0
        features: list[Features] = []
        for start in range(0, len(texts), BLOCK_TEXTS):
            block = texts[start : start + BLOCK_TEXTS]
            features.append(self._encoder.features_of_tokens(self._tokenise(block), on_done).cpu().numpy())
            end = start + len(block)
            if end == len(texts) or end - first >= SHARD_TEXTS or time.monotonic() - started >= SHARD_SECONDS:
                self._write_shard(texts[first:end], np.concatenate(features))
                started, first, features = time.monotonic(), end, []

    def _write_shard(self, texts: list[str], features: Features) -> None:
        keys = keys_of(texts)
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        with files.new_folder(self.folder / name) as temporary:
            np.save(temporary / "keys.npy", keys.view(np.uint8).reshape(-1, KEY_BYTES))
            np.save(temporary / "features.npy", features)
            seal(temporary, format=FORMAT, texts=len(texts))

    def _index(self) -> None:
        """Learn which texts the shards on disk have."""
        opened = {self._shards[number]: features for number, features in self._opened.items()}
        found = sorted(self.folder.glob("*/keys.npy")) if self.folder.is_dir() else []
        keys, places = [np.empty(0, dtype=f"V{KEY_BYTES}")], [np.empty((0, 2), dtype=np.int64)]
        self._shards, self._opened = [], {}
        for path in found:
            if path.parent.name.startswith("."):
                continue  # half-written
            try:
                of_shard = np.load(path).view(f"V{KEY_BYTES}").reshape(-1)
            except (OSError, ValueError):
                continue  # damaged or gone; its texts count as missing
            if path.parent in opened:
                self._opened[len(self._shards)] = opened[path.parent]
            keys.append(of_shard)
            places.append(np.stack([np.full(len(of_shard), len(self._shards)), np.arange(len(of_shard))], axis=1))
            self._shards.append(path.parent)
        self._keys, first = np.unique(np.concatenate(keys), return_index=True)
        self._places = np.concatenate(places)[first]

    def _require_room(self, texts: list[str]) -> None:
        needed, free = self.bytes_missing(texts), self.free_bytes()
        if needed > free:
            raise EnvironmentUnfit(
                f"{self.folder}: {len(texts)} texts' features need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
                "Free some space, or set RAGCUN_CACHE to a folder on a larger disk.",
            )


def keys_of(texts: Sequence[str]) -> Keys:
    """The texts' content hashes, (n,)."""
    joined = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest() for text in texts
    )
    return np.frombuffer(joined, dtype=f"V{KEY_BYTES}")


def _store_key(encoder: IsotropicGaussianEncoder) -> str:
    # float32 everywhere: features are computed once, and arms, seeds and evaluation share them.
    return key_of(
        format=FORMAT,
        network=encoder.network_digest(),
        tokenizer=encoder.text_tokenizer.digest,
        max_length=encoder.settings.max_length,
        unit_norm=encoder.settings.unit_norm_features,
        precision="float32",
        device=encoder.device.type,
    )


def _call(on_done: Callable[[int], None] | None, count: int) -> None:
    if on_done is not None and count:
        on_done(count)
