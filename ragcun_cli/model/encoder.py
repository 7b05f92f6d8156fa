"""IsotropicGaussianEncoder: backbone, mean pooling over real tokens, projection head.

The texts of a batch, queries and passages alike, go through the backbone as one row of tokens without padding
(`ragcun_cli.model.packed`). A family without such a path goes through the library's own forward, sorted by length
in chunks of similar length.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from ragcun_cli.arrays import Numbers, Vectors
from ragcun_cli.data.token_cache import TextTokenizer
from ragcun_cli.data.tokens import TokenBatch, chunks_within
from ragcun_cli.errors import UsageError
from ragcun_cli.model.backbone import Backbone, checkpoint_activations, load_backbone
from ragcun_cli.model.head import ResidualHead, build_head
from ragcun_cli.model.packed import packed_network
from ragcun_cli.model.sources import locate_model
from ragcun_cli.model.tokenizer import text_tokenizer, tokenise
from ragcun_cli.model.vector_store import require_finite, shown

# Texts per padded forward. On a CPU, 8 give 1.85x the speed of one forward of 48 (4: 1.76x, 16: 1.45x).
PADDED_TEXTS = {"cpu": 8, "mps": 32, "cuda": 64}
# Tokens per pass while encoding: the fastest of 512 to 16,384 on a CPU. Not measured on a GPU yet.
ENCODING_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 65_536}
# Config keys that say where it came from, what it is for, and what the library returns.
NO_PART_OF_THE_FUNCTION = frozenset(
    {
        "_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "id2label", "label2id",
        "problem_type", "output_hidden_states", "output_attentions", "return_dict", "use_cache",
    }
)  # fmt: skip
TEXTS_TOKENISED_AHEAD = 16_384  # while encoding: sorted by length among themselves; their tokens are in memory


@dataclass(frozen=True)
class EncoderSettings:
    """What a model folder must record besides the weights.

    `base_identity` names the weights that training started from: `commit:…` of the hub or `sha256:…`.
    """

    base_model: str
    base_identity: str
    head: str
    output_dim: int
    max_length: int
    unit_norm_features: bool


@dataclass(frozen=True)
class FeatureBatch:
    """Texts as pooled features (n, hidden_size) that the backbone computed earlier: all a frozen encoder needs."""

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
        self._packed = packed_network(network)
        self._checkpoints_layers = False

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
            max_length: tokens per text, longer texts are cut; the base model's own limit by default.
            revision: on the hub.
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

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return next(self.network.parameters()).device

    @property
    def hidden_size(self) -> int:
        """Dimensions of a pooled feature."""
        config: Any = self.network.config
        return int(config.hidden_size)

    @property
    def is_packed(self) -> bool:
        """Whether texts are encoded without padding."""
        return self._packed is not None

    def set_dropout(self, probability: float) -> None:
        """Set this dropout probability wherever the encoder and its head use dropout.

        Raises:
            UsageError: if the family has no packed path; its dropout may not be in modules.
        """
        if self._packed is None:
            family = type(self.network).__name__
            raise UsageError(f"dropout: ragcun cannot change it for {family}", "Set dropout: null.")
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability

    def use_gradient_checkpointing(self) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations.

        Raises:
            UsageError: if neither ragcun nor the library supports it for this family.
        """
        if self._packed is None:
            checkpoint_activations(self.network, self.settings.base_model)
        self._checkpoints_layers = True

    def compile_layers(self) -> None:
        """Let torch.compile fuse what follows attention in each layer.

        Raises:
            UsageError: where the family has no packed path.
        """
        if self._packed is None:
            family = type(self.network).__name__
            raise UsageError(f"compile: ragcun cannot compile {family}", "Set compile: false.")
        self._packed = packed_network(self.network, compiled=True)

    def layer_classes(self) -> list[str]:
        """Return the class names of the transformer layers, which FSDP2 takes as units."""
        if self._packed is not None:
            return sorted({type(layer.whole).__name__ for layer in self._packed.layers})
        return sorted(getattr(self.network, "_no_split_modules", None) or [])

    def run_through_layer_calls(self) -> None:
        """Let each layer be called as a module, as FSDP2's hooks require; to be done before FSDP2 wraps the model."""
        if self._packed is not None:
            self._packed = self._packed.through_layer_calls()

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """The tokenizer with the settings' max_length, in the form that the token cache needs."""
        config: Any = self.network.config
        return text_tokenizer(self.tokenizer, self.settings.max_length, config.vocab_size)

    def tokenize(self, texts: Sequence[str]) -> TokenBatch:
        """Token ids of the texts, special tokens included, each cut to the settings' max_length."""
        return TokenBatch.of(tokenise(self.tokenizer, texts, self.settings.max_length).ids)

    def forward(self, inputs: TokenBatch | FeatureBatch) -> Tensor:
        """Embeddings (n, output_dim), in the order of the inputs."""
        if isinstance(inputs, FeatureBatch):
            return self.head(inputs.features)
        return self.head(self.pool(inputs))

    def pool(self, batch: TokenBatch) -> Tensor:
        """Features (n, hidden_size) float32: the mean of each text's token states, unit-norm if the settings say so."""
        order = np.argsort(batch.lengths, kind="stable")
        in_order = batch.select(order)
        mean = self._packed_means(in_order) if self._packed is not None else self._padded_means(in_order)
        restore = torch.from_numpy(np.argsort(order)).to(mean.device)
        mean = mean[restore]
        return functional.normalize(mean, dim=-1) if self.settings.unit_norm_features else mean

    def _packed_means(self, batch: TokenBatch) -> Tensor:
        assert self._packed is not None
        states = self._packed.states(batch, self._checkpoints_layers)
        # float32 before the sum: under autocast 384 half-precision terms would lose the digits that distances need.
        lengths = torch.from_numpy(batch.lengths).to(states.device)
        if states.device.type == "mps":  # which has no segment_reduce
            texts = torch.repeat_interleave(torch.arange(len(batch), device=states.device), lengths)
            sums = torch.zeros(len(batch), states.shape[1], device=states.device).index_add(0, texts, states.float())
            return sums / lengths[:, None]
        # unsafe: no check of the lengths, which would make a GPU's queue run empty, twice a pass.
        means: Tensor = torch.segment_reduce(states.float(), "mean", lengths=lengths, unsafe=True)
        return means

    def _padded_means(self, batch: TokenBatch) -> Tensor:
        """Return the texts' mean states, computed with padding; `batch` is sorted by length."""
        size = PADDED_TEXTS[self.device.type]
        parts = [np.arange(start, min(start + size, len(batch))) for start in range(0, len(batch), size)]
        return torch.cat([self._padded_mean(batch.select(part)) for part in parts])

    def computed_tokens(self, lengths: Numbers) -> int:
        """Count the tokens that `pool` makes the backbone compute for texts of these lengths, padding included."""
        if self._packed is not None:
            return int(lengths.sum())
        in_order, size = np.sort(lengths), PADDED_TEXTS[self.device.type]
        parts = [in_order[start : start + size] for start in range(0, len(in_order), size)]
        return sum(len(part) * int(part[-1]) for part in parts)

    def _padded_mean(self, batch: TokenBatch) -> Tensor:
        ids = torch.full((len(batch), int(batch.lengths.max())), self.pad_id, dtype=torch.long)
        mask = torch.from_numpy(np.arange(ids.shape[1])[None, :] < batch.lengths[:, None])
        ids[mask] = torch.from_numpy(batch.ids.astype(np.int64))
        ids, mask = ids.to(self.device), mask.to(self.device)
        states: Tensor = self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        return (states.float() * weights).sum(1) / weights.sum(1)

    def features(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Tensor:
        """Pooled features (n, hidden_size) float32 on the model's device, without gradient or dropout.

        `on_done(count)` is called as texts finish.
        """
        parts = [
            self.features_of_tokens(self.tokenize(texts[start : start + TEXTS_TOKENISED_AHEAD]), on_done)
            for start in range(0, len(texts), TEXTS_TOKENISED_AHEAD)
        ]
        return torch.cat([torch.empty((0, self.hidden_size), device=self.device), *parts])

    def features_of_tokens(self, batch: TokenBatch, on_done: Callable[[int], None] | None = None) -> Tensor:
        """Like `features`, for texts that are already tokenised."""
        pooled = torch.empty((len(batch), self.hidden_size), device=self.device)
        with self._without_training(), torch.inference_mode():
            for chunk in chunks_within(batch.lengths, ENCODING_TOKENS[self.device.type]):
                pooled[torch.from_numpy(chunk).to(self.device)] = self.pool(batch.select(chunk))
                if on_done is not None:
                    on_done(len(chunk))
        return pooled

    def project(self, features: Tensor) -> Vectors:
        """Embeddings (n, output_dim) float32 of pooled features, without gradient or dropout."""
        with self._without_training(), torch.inference_mode():
            embeddings: Vectors = self.head(features).float().cpu().numpy()
        return embeddings

    def encode(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Vectors:
        """Embeddings of texts, shape (n, output_dim), float32, in the order given.

        Raises:
            ModelError: naming texts whose embedding is not finite.
        """
        embeddings = np.empty((len(texts), self.settings.output_dim), dtype=np.float32)
        # In parts: a whole corpus's features need not fit on the device.
        for start in range(0, len(texts), TEXTS_TOKENISED_AHEAD):
            part = slice(start, start + TEXTS_TOKENISED_AHEAD)
            embeddings[part] = self.project(self.features(texts[part], on_done))
        require_finite(embeddings, lambda row: shown(texts[row]))
        return embeddings

    @contextlib.contextmanager
    def _without_training(self) -> Iterator[None]:
        """Switch dropout off; afterwards each part returns to its previous mode."""
        modes = [(module, module.training) for module in (self, self.network, self.head)]
        self.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.train(mode)

    def network_digest(self) -> str:
        """Hex sha256 of the backbone's weights and config: equal digests mean equal features."""
        config: Any = self.network.config
        function = {key: value for key, value in config.to_dict().items() if key not in NO_PART_OF_THE_FUNCTION}
        written = json.dumps(function, sort_keys=True, default=str)
        return hashlib.sha256(f"{written}\n{_digest(self.network)}".encode()).hexdigest()

    def head_digest(self) -> str:
        """Hex sha256 of the head's weights and kind."""
        return f"{self.settings.head} {_digest(self.head)}"


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
