"""IsotropicGaussianEncoder: backbone, mean pooling over real tokens, projection head.

Texts of a batch go through the backbone sorted by length in chunks of similar length: on queries and passages
together, padding all of them to the longest computes two to three times the real tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from ragcun_cli.model.backbone import Backbone, load_backbone
from ragcun_cli.model.head import ResidualHead, build_head
from ragcun_cli.model.sources import locate_model

Embeddings = npt.NDArray[np.float32]

TRAINING_CHUNK_TEXTS = 8  # measured: 1.85x the speed of one padded batch of 48 texts on a CPU (4: 1.76x, 16: 1.45x)
ENCODING_CHUNK_TOKENS = 2048  # padded tokens of one forward pass; fastest of 512 to 8192 on a CPU


@dataclass(frozen=True)
class EncoderSettings:
    """What a model folder must say besides the weights.

    `base_identity` names the weights that training started from: `commit:…` of the hub or `sha256:…`.
    """

    base_model: str
    base_identity: str
    head: str
    output_dim: int
    max_length: int
    unit_norm_features: bool


@dataclass(frozen=True)
class TokenBatch:
    """Texts as token ids, special tokens included, in any order."""

    token_ids: list[list[int]]


@dataclass(frozen=True)
class FeatureBatch:
    """Texts as pooled features (n, hidden_size) that the backbone gave earlier: all a frozen encoder needs."""

    features: Tensor


class IsotropicGaussianEncoder(nn.Module):
    """Any Hugging Face encoder with a head to unnormalised embeddings that are compared by Euclidean distance."""

    def __init__(
        self,
        network: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        head: nn.Module,
        settings: EncoderSettings,
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.head = head
        self.settings = settings
        self.pad_id = int(tokenizer.pad_token_id or 0)

    @classmethod
    def from_base(
        cls,
        base_model: str,
        *,
        output_dim: int = 512,
        head: str = "residual",
        max_length: int | None = None,
        revision: str | None = None,
        seed: int = 0,
    ) -> IsotropicGaussianEncoder:
        """A pre-trained encoder with a new head.

        Args:
            base_model: hub id, local folder or `embedded:all-MiniLM-L6-v2`.
            output_dim: dimensions of an embedding.
            head: `residual` or `mlp`.
            max_length: tokens of a text, longer ones are cut; the base model's own limit by default.
            revision: of the hub.
            seed: of the head's weights alone; torch's global random state is left as it was.
        """
        files = locate_model(base_model, revision)
        backbone = load_backbone(files.folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            new_head = build_head(head, backbone.hidden_size, output_dim)
        if backbone.unit_norm and isinstance(new_head, ResidualHead):
            new_head.expect_unit_norm()
        return cls._assemble(backbone, new_head, base_model, files.identity, head, output_dim, max_length)

    @classmethod
    def untouched(cls, base_model: str, max_length: int | None = None) -> IsotropicGaussianEncoder:
        """A pre-trained encoder as its authors use it: no head, normalised if they normalise."""
        files = locate_model(base_model)
        backbone = load_backbone(files.folder)
        dimension = backbone.hidden_size
        return cls._assemble(backbone, nn.Identity(), base_model, files.identity, "none", dimension, max_length)

    @classmethod
    def _assemble(
        cls,
        backbone: Backbone,
        head: nn.Module,
        base_model: str,
        identity: str,
        kind: str,
        output_dim: int,
        max_length: int | None,
    ) -> IsotropicGaussianEncoder:
        settings = EncoderSettings(
            base_model=base_model,
            base_identity=identity,
            head=kind,
            output_dim=output_dim,
            max_length=max_length or backbone.max_length,
            unit_norm_features=backbone.unit_norm,
        )
        return cls(backbone.network, backbone.tokenizer, head, settings)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> IsotropicGaussianEncoder:
        """Load what `save_pretrained` wrote. See `ragcun_cli.model.folder.load_encoder`."""
        from ragcun_cli.model.folder import load_encoder

        return load_encoder(Path(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model folder. See `ragcun_cli.model.folder.save_encoder`."""
        from ragcun_cli.model.folder import save_encoder

        save_encoder(self, Path(folder))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut to the settings' max_length."""
        if not texts:
            return []
        encoded: Any = self.tokenizer(
            list(texts), truncation=True, max_length=self.settings.max_length, padding=False, verbose=False
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def forward(self, inputs: TokenBatch | FeatureBatch) -> Tensor:
        """Embeddings (n, output_dim), in the order of the inputs."""
        if isinstance(inputs, FeatureBatch):
            return self.head(inputs.features)
        return self.head(self.pool(inputs.token_ids, _chunks_of(inputs.token_ids, TRAINING_CHUNK_TEXTS)))

    def pool(self, token_ids: list[list[int]], chunks: Iterator[list[int]]) -> Tensor:
        """Features (n, hidden_size) float32: the mean of each text's token states, unit-norm if the settings say so.

        `chunks` are the texts (by index) of each pass through the backbone; together they name each text once.
        """
        order, pooled = [], []
        for chunk in chunks:
            order += chunk
            pooled.append(self._pool_chunk([token_ids[index] for index in chunk]))
        restore = torch.empty(len(order), dtype=torch.long)
        restore[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(pooled)[restore.to(self.device)]

    def _pool_chunk(self, token_ids: list[list[int]]) -> Tensor:
        longest = max(map(len, token_ids))
        ids = torch.full((len(token_ids), longest), self.pad_id, dtype=torch.long)
        mask = torch.zeros((len(token_ids), longest), dtype=torch.long)
        for row, text in enumerate(token_ids):
            ids[row, : len(text)] = torch.tensor(text, dtype=torch.long)
            mask[row, : len(text)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        states: Tensor = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        # float32 before the sum: under autocast 384 half-precision terms would lose the digits that distances need.
        weights = mask.unsqueeze(-1).float()
        mean = (states.float() * weights).sum(1) / weights.sum(1).clamp_min(1e-9)
        return functional.normalize(mean, dim=-1) if self.settings.unit_norm_features else mean

    def features(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Tensor:
        """Pooled features (n, hidden_size) float32 on the model's device, without gradient or dropout.

        `on_done(count)` is called as texts finish.
        """
        if not texts:
            return torch.empty((0, self.hidden_size), device=self.device)
        token_ids = self.tokenize(texts)

        def chunks() -> Iterator[list[int]]:
            for chunk in _chunks_within(token_ids, ENCODING_CHUNK_TOKENS):
                yield chunk
                if on_done is not None:
                    on_done(len(chunk))

        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                pooled = self.pool(token_ids, chunks())
        finally:
            self.train(was_training)
        return pooled.clone()  # a tensor of inference_mode could not enter a training step

    def project(self, features: Tensor) -> Embeddings:
        """Embeddings (n, output_dim) float32 of pooled features, without gradient or dropout."""
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                embeddings: Embeddings = self.head(features).float().cpu().numpy()
        finally:
            self.train(was_training)
        return embeddings

    def encode(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Embeddings:
        """Embeddings of texts, shape (n, output_dim), float32, in the order given."""
        return self.project(self.features(texts, on_done))

    @property
    def hidden_size(self) -> int:
        """Dimensions of a pooled feature."""
        config: Any = self.network.config
        return int(config.hidden_size)


def _by_length(token_ids: list[list[int]]) -> list[int]:
    return sorted(range(len(token_ids)), key=lambda index: len(token_ids[index]))


def _chunks_of(token_ids: list[list[int]], size: int) -> Iterator[list[int]]:
    order = _by_length(token_ids)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _chunks_within(token_ids: list[list[int]], budget: int) -> Iterator[list[int]]:
    """Chunks whose padded size stays within `budget` tokens, longest first: memory that suffices once suffices."""
    chunk: list[int] = []
    for index in reversed(_by_length(token_ids)):
        longest = len(token_ids[chunk[0]]) if chunk else len(token_ids[index])
        if chunk and longest * (len(chunk) + 1) > budget:
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        yield chunk
