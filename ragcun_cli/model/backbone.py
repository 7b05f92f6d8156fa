"""The pre-trained encoder as the library loads it, and what its authors say follows it."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import normalizers
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from ragcun_cli.errors import ModelError, UsageError
from ragcun_cli.imports import collector_at_rest
from ragcun_cli.model.native_use import NativeUse, declares_lower_case, native_use
from ragcun_cli.model.packed import POSITIONS_AFTER_PADDING, first_position, packed_network
from ragcun_cli.model.tokenizer import tokenise

# Weights that no embedding depends on: those of the unused pooler, and counters that older versions saved.
UNUSED = re.compile(r"(^|\.)pooler\.|\.position_ids$|\.inv_freq$|\.token_type_ids$")
# A text alone and beside a longer one; float32 sums differ in the last digits.
PROBE_TEXTS = ("retrieval", "does making embeddings isotropic make dense retrieval better " * 3)
PROBE_TOKENS = 32
PROBE_TOLERANCE = 1e-4
FLOATING = ("F64", "F32", "F16", "BF16")  # of weights, as safetensors names them
T5_FAMILY = ("t5", "mt5", "umt5", "longt5", "switch_transformers")  # AutoModel builds a decoder for each of them
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
        native_files: read what sentence-transformers' files say about its use; False for ragcun's own folders,
            whose settings say it.

    Raises:
        ModelError: if the folder cannot be loaded, its weights do not fit, or its declared use is not supported.
    """
    native = native_use(folder) if native_files else NativeUse(lower_case=declares_lower_case(folder))
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        # The library would silently make an empty tokenizer, to which all texts are equal.
        raise ModelError(f"{folder}: the tokenizer's files are missing", f"Add one of: {', '.join(TOKENIZER_FILES)}.")
    try:
        with quiet_library(), collector_at_rest():
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            _require_text_encoder(folder, config)
            network, fit = AutoModel.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # named below; the library's own error names none
                **_without_pooler(config),
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    except ModelError:
        raise
    except Exception as error:  # whatever a foreign config makes the library raise, the folder is at fault
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{folder}: transformers cannot load this model: {reason}", "Is it complete? Fetch or copy it again."
        ) from None
    _require_fit(folder, network, fit)
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}",
            "These files do not belong together.",
        )
    if native.lower_case:
        _lower_case(tokenizer, folder)
    _require_independence(folder, network, tokenizer)
    # The length that the authors declare overrides the tokenizer's, as in sentence-transformers.
    limit = min(native.max_length or tokenizer.model_max_length, longest_input(network))
    return Backbone(network, tokenizer, config.hidden_size, native.unit_norm, int(limit))


def _require_fit(folder: Path, network: nn.Module, fit: Mapping[str, Any]) -> None:
    """Refuse weights that do not fit the network.

    Raises:
        ModelError: if a weight that the encoder uses is not in the file (the library would leave random numbers), or
            the file has encoder weights that the config has no place for.
    """
    missing = sorted(name for name in fit["missing_keys"] if not UNUSED.search(name))
    if missing:
        raise ModelError(
            f"{folder}: its weights do not match its config.json: {len(missing)} are missing, such as {missing[0]}",
            "Save or copy the model again; the names in model.safetensors must be those that transformers writes.",
        )
    misshapen = sorted(fit["mismatched_keys"])
    if misshapen:
        name, in_file, here = misshapen[0]
        raise ModelError(
            f"{folder}: its weights do not match its config.json: {len(misshapen)} have another shape, such as {name}: "
            f"{tuple(in_file)} in the file, {tuple(here)} according to config.json",
            "Does config.json belong to another model?",
        )
    _require_floats(folder, network)
    prefix = f"{getattr(network, 'base_model_prefix', '')}."
    parts = {name for name, _ in network.named_children()}
    unexpected = sorted(
        name
        for name in fit["unexpected_keys"]
        if name.removeprefix(prefix).split(".")[0] in parts and not UNUSED.search(name)
    )
    if unexpected:
        raise ModelError(
            f"{folder}: its weights do not match its config.json: {len(unexpected)} in the file have no place, such as "
            f"{unexpected[0]}",
            "Does config.json belong to another model, such as one with fewer layers?",
        )


def _require_floats(folder: Path, network: nn.Module) -> None:
    """Refuse integer weights: the library would turn them into floats, which without their scales are noise."""
    prefix = f"{getattr(network, 'base_model_prefix', '')}."
    floating = {name for name, value in network.state_dict().items() if value.is_floating_point()}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                kind = tensors.get_slice(name).get_dtype()
                if name.removeprefix(prefix) in floating and kind not in FLOATING:
                    raise ModelError(
                        f"{path}: {name} is stored as {kind}, not as floating-point numbers",
                        "Quantised weights are not supported: use the model as its authors trained it.",
                    )


def _lower_case(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Lower-case texts before anything else the tokenizer does, as sentence-transformers does."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(f"{folder}: do_lower_case needs a fast tokenizer", "Is there a tokenizer.json?")
    if _lowers(tokenizer):
        return
    before = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])


def loses_lower_case(tokenizer: PreTrainedTokenizerBase, folder: Path) -> bool:
    """Whether a tokenizer set to lower-case (see `_lower_case`) no longer does so when loaded from where it was
    saved: some classes, such as BertTokenizer, replace the normaliser with their own.
    """
    if not _lowers(tokenizer):
        return False
    with quiet_library():
        return not _lowers(AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True))


def _lowers(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and "Lowercase" in json.dumps(json.loads(backend.to_str())["normalizer"] or {})


def _require_independence(folder: Path, network: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """For families run with padding, require that a text's embedding does not depend on its batch.

    Raises:
        ModelError: if it does (ConvBERT's convolutions run over the padding), or the forward pass fails.
    """
    if packed_network(network) is not None:
        return
    ids: list[list[int]] = [tokenise(tokenizer, [text], PROBE_TOKENS).ids[0] for text in PROBE_TEXTS]
    try:
        with torch.inference_mode():
            alone, beside = (_means(network.eval(), some, tokenizer.pad_token_id or 0) for some in (ids[:1], ids))
    except Exception as error:  # whatever a network that is not a text encoder raises
        reason = next(iter(str(error).strip().splitlines()), repr(error))
        raise ModelError(
            f"{folder}: {type(network).__name__} cannot embed a text: {reason}", "Use an encoder such as BERT."
        ) from None
    width = getattr(network.config, "hidden_size", alone.shape[1])
    if alone.shape[1] != width:
        raise ModelError(
            f"{folder}: {type(network).__name__} gives {alone.shape[1]} values per token, but config.json has "
            f"hidden_size: {width}",
            "Use an encoder such as BERT.",
        )
    if not torch.linalg.vector_norm(alone[0] - beside[0]) <= PROBE_TOLERANCE * torch.linalg.vector_norm(alone[0]):
        raise ModelError(
            f"{folder}: {type(network).__name__}'s embedding of a text depends on the other texts in the batch",
            "Its scores would depend on the order of texts. Use an encoder whose padding changes nothing.",
        )


def _means(network: nn.Module, ids: list[list[int]], pad_id: int) -> torch.Tensor:
    """Return (n, hidden_size) the mean state of each text, padded to the longest."""
    longest = max(map(len, ids))
    padded = torch.tensor([each + [pad_id] * (longest - len(each)) for each in ids])
    mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in ids])
    states: torch.Tensor = network(input_ids=padded, attention_mask=mask).last_hidden_state
    return (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def _require_text_encoder(folder: Path, config: Any) -> None:
    is_pair = getattr(config, "is_encoder_decoder", False) or config.model_type in T5_FAMILY
    if is_pair or not (hasattr(config, "hidden_size") and hasattr(config, "vocab_size")):
        raise ModelError(
            f"{folder}: a {config.model_type} model is not a text encoder", "Use an encoder such as BERT or MPNet."
        )
    if getattr(config, "attention_type", None) == "block_sparse":
        raise ModelError(
            f"{folder}: config.json has attention_type: block_sparse, which the library abandons for good at the first "
            "short text; an embedding would then depend on the texts before it",
            "Set attention_type to original_full in config.json.",
        )
    if config.model_type in POSITIONS_AFTER_PADDING and getattr(config, "pad_token_id", None) is None:
        raise ModelError(
            f"{folder}: config.json has no pad_token_id, from which a {config.model_type} model counts positions",
            "Copy the model again.",
        )


def longest_input(network: nn.Module) -> int:
    """Return the most tokens the network has position embeddings for; a large number if it has no limit."""
    config: Any = network.config
    positions = int(getattr(config, "max_position_embeddings", -1))
    if positions < 0:  # XLNet's way of saying that there is no limit
        return 1 << 30
    # The RoBERTa family, MPNet among them, counts positions from padding_idx + 1.
    return positions - first_position(network)


def checkpoint_activations(network: nn.Module, name: str) -> None:
    """Let the library recompute activations in the backward pass.

    Raises:
        UsageError: where the library has no checkpointing for this family.
    """
    if not getattr(network, "supports_gradient_checkpointing", False):
        raise UsageError(
            f"gradient_checkpointing: transformers does not support it for {name} ({type(network).__name__})",
            "Leave gradient_checkpointing: false; a smaller batch_size or max_length saves memory too.",
        )
    any_network: Any = network
    if hasattr(network, "activation_checkpointing_enable"):  # transformers' name for it since 5.20
        any_network.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        any_network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _without_pooler(config: Any) -> dict[str, Any]:
    """Leave out BERT's and MPNet's unused pooler, which would otherwise be counted, trained and saved."""
    family: Any = AutoModel._model_mapping.get(type(config), None)
    parameters = inspect.signature(family.__init__).parameters if family is not None else {}
    return {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """Silence transformers' report of the absent pooler and its progress bars for each load and save."""
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
