"""What a frozen encoder gives for a text, computed once and kept on disk.

`<cache>/features/<key>/`, the key covering the encoder's weights, its tokenizer, the length that texts are cut to,
whether features are normalised, and the precision. In it are shards, each whole or absent:

    <name>/keys.npy       (n, 16) uint8, blake2b of each text
    <name>/features.npy   (n, hidden_size) float32, memory-mapped
    <name>/manifest.json  digests of both

Arms, seeds and evaluations of one encoder find each other's shards; a run that is interrupted goes on at the shard.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ragcun_cli import files
from ragcun_cli.console import note
from ragcun_cli.data.cache import key_of, only_writer
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.manifest import problem_with, seal
from ragcun_cli.model.encoder import Embeddings, IsotropicGaussianEncoder

FORMAT = 1
KEY_BYTES = 16
SHARD_TEXTS = 8192  # about a minute of MiniLM on two cores: what an interruption costs at most

Keys = npt.NDArray[np.void]  # (n,) of KEY_BYTES each
Features = npt.NDArray[np.float32]


class FeatureStore:
    """Pooled features by text; each distinct text passes the encoder once, whoever asks."""

    def __init__(self, encoder: IsotropicGaussianEncoder, cache: Path) -> None:
        self._encoder = encoder
        self.folder = cache / "features" / _store_key(encoder)
        self._shards: list[Features] = []
        self._opened: set[str] = set()
        # Sorted keys of all shards, and for each where its features are: shard and row.
        self._keys: Keys = np.empty(0, dtype=f"V{KEY_BYTES}")
        self._places: npt.NDArray[np.int64] = np.empty((0, 2), dtype=np.int64)
        self._open_new_shards()

    def fill(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> None:
        """Encode those of the texts that no shard has.

        `on_done(count)` is called as texts are there, those found at once.

        Raises:
            EnvironmentUnfit: if the disk has no room for them.
        """
        if len(self._missing(texts)) == 0:
            return _call(on_done, len(texts))
        with only_writer(self.folder):
            files.sweep_leftovers(self.folder)
            self._open_new_shards()  # another process may have filled it meanwhile
            missing = self._missing(texts)
            self._require_room(missing)
            _call(on_done, len(texts) - len(missing))
            # Longest first, so that each shard's texts share their passes with texts of their length.
            missing.sort(key=len, reverse=True)
            for start in range(0, len(missing), SHARD_TEXTS):
                self._write_shard(missing[start : start + SHARD_TEXTS], on_done)
            self._open_new_shards()
        return None

    def bytes_missing(self, texts: Sequence[str]) -> int:
        """What `fill` would write."""
        return len(self._missing(texts)) * (4 * self._encoder.hidden_size + KEY_BYTES)

    def places(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Shard and row of each text, (n, 2), to be given to `take`; the texts are there."""
        keys = keys_of(texts)
        return self._places[np.searchsorted(self._keys, keys)]

    def take(self, places: npt.NDArray[np.int64]) -> Tensor:
        """Features (n, hidden_size) float32 on the encoder's device."""
        features = np.empty((len(places), self._encoder.hidden_size), dtype=np.float32)
        for shard in np.unique(places[:, 0]):
            here = places[:, 0] == shard
            features[here] = self._shards[shard][places[here, 1]]
        return torch.from_numpy(features).to(self._encoder.device)

    def features(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Tensor:
        """(n, hidden_size) float32 of these texts, encoding those that are new."""
        self.fill(texts, on_done)
        return self.take(self.places(texts))

    def encode(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Embeddings:
        """Embeddings with the head as it is now."""
        return self._encoder.project(self.features(texts, on_done))

    def _missing(self, texts: Sequence[str]) -> list[str]:
        distinct = list(dict.fromkeys(texts))
        keys = keys_of(distinct)
        places = np.searchsorted(self._keys, keys)
        known = np.zeros(len(distinct), dtype=bool)
        inside = places < len(self._keys)
        known[inside] = self._keys[places[inside]] == keys[inside]
        return [text for text, is_known in zip(distinct, known.tolist(), strict=True) if not is_known]

    def _write_shard(self, texts: list[str], on_done: Callable[[int], None] | None) -> None:
        features = self._encoder.features(texts, on_done).cpu().numpy()
        keys = keys_of(texts)
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        with files.new_folder(self.folder / name) as temporary:
            np.save(temporary / "keys.npy", keys.view(np.uint8).reshape(-1, KEY_BYTES))
            np.save(temporary / "features.npy", features)
            seal(temporary, format=FORMAT, texts=len(texts))

    def _open_new_shards(self) -> None:
        if not self.folder.is_dir():
            return
        new_keys, new_places = [self._keys], [self._places]
        for shard in sorted(path for path in self.folder.iterdir() if path.is_dir() and path.name[0] != "."):
            if shard.name in self._opened:
                continue
            if problem := problem_with(shard):
                note(f"{shard}: {problem}; its texts are encoded again.")
                shutil.rmtree(shard, ignore_errors=True)  # another process may have found it too
                continue
            self._opened.add(shard.name)
            keys = np.load(shard / "keys.npy").view(f"V{KEY_BYTES}").reshape(-1)
            rows = np.arange(len(keys))
            new_keys.append(keys)
            new_places.append(np.stack([np.full(len(keys), len(self._shards)), rows], axis=1))
            self._shards.append(np.load(shard / "features.npy", mmap_mode="r"))
        all_keys, first = np.unique(np.concatenate(new_keys), return_index=True)
        self._keys, self._places = all_keys, np.concatenate(new_places)[first]

    def free_bytes(self) -> int:
        """What the disk with the store has left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free

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
    # float32 everywhere: features are computed once, so exactness costs little, and arms, seeds and evaluation
    # share them. A GPU's TF32 products differ from a CPU's in the fourth digit, so they are another precision.
    precision = "tf32" if encoder.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32 else "float32"
    return key_of(
        format=FORMAT,
        network=encoder.network_digest(),
        tokenizer=encoder.text_tokenizer.digest,
        max_length=encoder.settings.max_length,
        unit_norm=encoder.settings.unit_norm_features,
        precision=precision,
        device=encoder.device.type,
    )


def _call(on_done: Callable[[int], None] | None, count: int) -> None:
    if on_done is not None and count:
        on_done(count)
