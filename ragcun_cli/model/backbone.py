"""The pre-trained encoder as the library gives it, and what its authors say comes after it."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from ragcun_cli.errors import ModelError, UsageError
from ragcun_cli.imports import collector_at_rest

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


@dataclass(frozen=True)
class Backbone:
    """The network, its tokenizer and its native use.

    `unit_norm`: its authors normalise the pooled embedding (a Normalize module in modules.json).
    `max_length`: tokens its authors use, special tokens included.
    """

    network: nn.Module
    tokenizer: PreTrainedTokenizerBase
    hidden_size: int
    unit_norm: bool
    max_length: int


def load_backbone(folder: Path, native_files: bool = True) -> Backbone:
    """Load an encoder of any Hugging Face family from a local folder, in float32.

    Args:
        folder: with config.json, model.safetensors and tokenizer files.
        native_files: read what sentence-transformers' files say of its use; False for ragcun's own folders,
            whose settings say it.

    Raises:
        ModelError: if the folder cannot be loaded, or pools otherwise than by the mean.
    """
    native = _native_use(folder) if native_files else _NOTHING_SAID
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        # The library would make an empty tokenizer, to which all texts are equal, without a word.
        raise ModelError(f"{folder}: the tokenizer's files are missing", f"One of: {', '.join(TOKENIZER_FILES)}.")
    try:
        with quiet_library(), collector_at_rest():
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            network = AutoModel.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                **_without_pooler(config),
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    except Exception as error:  # whatever a foreign config makes the library raise, the folder is what is wrong
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{folder}: transformers cannot load this model: {reason}", "Is it whole? Fetch or copy it again."
        ) from None
    _require_text_encoder(folder, network, tokenizer)
    positions = longest_input(network)
    limit = min(native.max_length or positions, tokenizer.model_max_length, positions)
    return Backbone(network, tokenizer, config.hidden_size, native.unit_norm, int(limit))


def _require_text_encoder(folder: Path, network: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    config: Any = network.config
    if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "hidden_size"):
        raise ModelError(
            f"{folder}: a {config.model_type} model is not a text encoder", "Use an encoder such as BERT or MPNet."
        )
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}",
            "These files do not belong together.",
        )


def longest_input(network: nn.Module) -> int:
    """The most tokens the network has position embeddings for."""
    config: Any = network.config
    positions = int(getattr(config, "max_position_embeddings", 1 << 30))
    # The RoBERTa family, MPNet among them, counts positions from padding_idx + 1.
    offset = 2 if config.model_type in ("mpnet", "roberta", "xlm-roberta", "camembert") else 0
    return positions - offset


def checkpoint_activations(network: nn.Module, name: str) -> None:
    """Let the library recompute activations in the backward pass.

    Raises:
        UsageError: where the library has no checkpointing for this family.
    """
    if not getattr(network, "supports_gradient_checkpointing", False):
        raise UsageError(
            f"gradient_checkpointing: transformers has none for {name} ({type(network).__name__})",
            "Leave gradient_checkpointing: false; a smaller batch_size or max_length saves memory too.",
        )
    any_network: Any = network
    if hasattr(network, "activation_checkpointing_enable"):  # transformers' name for it since 5.20
        any_network.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        any_network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


@dataclass(frozen=True)
class _NativeUse:
    """What sentence-transformers' files say; max_length 0 where they say nothing."""

    unit_norm: bool
    max_length: int


_NOTHING_SAID = _NativeUse(unit_norm=False, max_length=0)


def _native_use(folder: Path) -> _NativeUse:
    try:
        return _parse_native_use(folder)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{folder}: modules.json or a file it names is not what it should be ({error!r})") from None


def _parse_native_use(folder: Path) -> _NativeUse:
    unit_norm = False
    for module in _read_json(folder / "modules.json", []):
        kind = str(module["type"]).rsplit(".", 1)[-1]
        if kind == "Normalize":
            unit_norm = True
        elif kind == "Pooling":
            _require_mean_pooling(folder, folder / module["path"] / "config.json")
        elif kind != "Transformer":
            raise ModelError(
                f"{folder}: its modules.json has a {kind} module, which ragcun does not reproduce",
                "Use an encoder of the form Transformer, mean Pooling, Normalize.",
            )
    prompts = _read_json(folder / "config_sentence_transformers.json", {})
    if (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or ""):
        raise ModelError(
            f"{folder}: its authors put a prompt before every text ({prompts['default_prompt_name']!r})",
            "ragcun puts none, so this encoder would look worse than it is.",
        )
    max_length = int(_read_json(folder / "sentence_bert_config.json", {}).get("max_seq_length") or 0)
    return _NativeUse(unit_norm, max_length)


def _require_mean_pooling(folder: Path, path: Path) -> None:
    config = _read_json(path, {})
    # Two spellings: one flag per mode until sentence-transformers 5, one word since 6.
    mean = config.get("pooling_mode_mean_tokens", config.get("pooling_mode", "mean") == "mean")
    others = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if not mean or others not in ([], ["pooling_mode_mean_tokens"]):
        raise ModelError(
            f"{folder}: this model is not pooled by the mean of its tokens",
            "ragcun compares mean-pooled encoders; scored otherwise, this one would look worse than it is.",
        )


def _read_json(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON ({error})") from None


def _without_pooler(config: Any) -> dict[str, Any]:
    """BERT's and MPNet's own pooler is not used: leave it out, lest it be counted, trained and saved."""
    family: Any = AutoModel._model_mapping.get(type(config), None)
    parameters = inspect.signature(family.__init__).parameters if family is not None else {}
    return {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """transformers reports the absent pooler and draws a bar for each load and save; neither is news here."""
    from transformers.utils import logging as library_logging

    level, bars = library_logging.get_verbosity(), library_logging.is_progress_bar_enabled()
    library_logging.set_verbosity(logging.ERROR)
    library_logging.disable_progress_bar()
    try:
        yield
    finally:
        library_logging.set_verbosity(level)
        if bars:
            library_logging.enable_progress_bar()
