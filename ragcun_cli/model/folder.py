"""The model folder, which ragcun and sentence-transformers load with equal embeddings.

    config.json, model.safetensors     the backbone, as transformers writes it
    tokenizer*.json, vocab.txt         the tokenizer
    ragcun.json                        EncoderSettings
    projection.safetensors             the head, exactly
    modules.json, 1_Pooling/, ...      the same model as a chain of sentence-transformers modules

sentence-transformers has no module "skip + MLP", and we must not require code in a model folder. But
gelu(x) - gelu(-x) = x, so the residual head is a chain of its plain Dense modules, with A the skip:

    hidden = gelu([W1; A; -A] c x + [b1; 0; 0])        the first Dense
    output = [W2, I, -I] hidden + b2                   the second
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ragcun_cli import files
from ragcun_cli.errors import ModelError, UsageError
from ragcun_cli.model.backbone import load_backbone, loses_lower_case, quiet_library
from ragcun_cli.model.encoder import EncoderSettings, IsotropicGaussianEncoder
from ragcun_cli.model.head import MlpHead, ResidualHead, build_head
from ragcun_cli.model.native_use import MODULES, PROMPTS
from ragcun_cli.model.sources import SETTINGS, pickle_reason, weights_identity
from ragcun_cli.tensors import save_tensors, system_errors

PROJECTION = "projection.safetensors"
FORMAT = 1


def is_ragcun_model(folder: Path) -> bool:
    """Whether `folder` was written by `save_encoder`."""
    return (folder / SETTINGS).is_file()


def save_encoder(encoder: IsotropicGaussianEncoder, folder: Path, texts: Mapping[str, str] | None = None) -> None:
    """Write the whole folder or nothing; an existing one is replaced when the new one is complete.

    `texts` are further files by name, such as the recipe that trained the model.
    """
    with files.new_folder(folder) as temporary:
        network: Any = encoder.network
        with quiet_library(), system_errors(temporary):
            network.save_pretrained(temporary)
        encoder.tokenizer.save_pretrained(str(temporary))
        save_tensors(_contiguous(encoder.head.state_dict()), temporary / PROJECTION)
        digests = {path.name: files.sha256_of_file(path) for path in sorted(temporary.glob("*.safetensors"))}
        files.write_json(temporary / SETTINGS, {"format": FORMAT, **asdict(encoder.settings), "sha256": digests})
        _write_sentence_transformers_files(encoder, temporary)
        for name, content in (texts or {}).items():
            files.write_text(temporary / name, content)


def write_pointer(root: Path, inner: str) -> None:
    """Let sentence-transformers load the model in `root/inner` by the name of `root`, such as a run's folder."""
    modules = json.loads((root / inner / MODULES).read_text(encoding="utf-8"))
    moved = [{**module, "path": f"{inner}/{module['path']}".rstrip("/")} for module in modules]
    files.write_json(root / MODULES, moved)
    files.write_bytes(root / PROMPTS, (root / inner / PROMPTS).read_bytes())


def load_encoder(folder: str | Path) -> IsotropicGaussianEncoder:
    """Load a model folder that `save_encoder` wrote.

    Raises:
        UsageError: if there is no such folder.
        ModelError: if it is a pickle, is not a model folder, or is damaged.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ModelError(
            f"{folder}: this is a file, not a model folder", pickle_reason(folder) or "Give the folder it is in."
        )
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such model folder", "Give RUN/best_model, for example.")
    weights_identity(folder)
    settings = _read_settings(folder)
    # modules.json here is ours, not the backbone's: it names the Dense modules that represent the head.
    backbone = load_backbone(folder, native_files=False)
    head = build_head(settings.head, backbone.hidden_size, settings.output_dim)
    try:
        head.load_state_dict(load_file(folder / PROJECTION))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{folder / PROJECTION}: cannot be loaded: {reason}", "Save or copy the model again."
        ) from None
    return IsotropicGaussianEncoder(backbone.network, backbone.tokenizer, head, settings)


def _read_settings(folder: Path) -> EncoderSettings:
    path = folder / SETTINGS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ModelError(f"{path}: written by another version of ragcun", "Train or save the model again.")
        digests = content.pop("sha256")
        settings = EncoderSettings(**content)
        damaged = [name for name, digest in digests.items() if files.sha256_of_file(folder / name) != digest]
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: not a ragcun model folder: {SETTINGS} is missing",
            "For an encoder as its authors made it, use IsotropicGaussianEncoder.untouched or from_base.",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ModelError(f"{path}: not readable ({error})", "Copy or save the model again.") from None
    if damaged:
        # safetensors alone would load a flipped byte silently.
        raise ModelError(
            f"{folder / damaged[0]}: its sha256 is not the one it was written with", "Save or copy the model again."
        )
    return settings


def _write_sentence_transformers_files(encoder: IsotropicGaussianEncoder, folder: Path) -> None:
    chain = ["Transformer", "Pooling"]
    if encoder.settings.unit_norm_features:
        chain.append("Normalize")
    layers = _as_dense_layers(encoder.head)
    chain += ["Dense"] * len(layers)
    places = ["", *(f"{index}_{kind}" for index, kind in enumerate(chain[1:], start=1))]
    # These import paths load in every release since 2.0; the newer ones do not load in older releases.
    modules = [
        {"idx": index, "name": str(index), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, place) in enumerate(zip(chain, places, strict=True))
    ]
    files.write_json(folder / MODULES, modules)
    files.write_json(
        folder / "sentence_bert_config.json",
        {
            "max_seq_length": encoder.settings.max_length,
            "do_lower_case": loses_lower_case(encoder.tokenizer, folder),
        },
    )
    files.write_json(
        folder / PROMPTS,
        {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "euclidean"},
    )
    files.write_json(
        folder / places[1] / "config.json",
        {"word_embedding_dimension": encoder.hidden_size, "pooling_mode_mean_tokens": True},
    )
    for place, (weight, bias, activation) in zip(places[len(chain) - len(layers) :], layers, strict=True):
        (folder / place).mkdir()
        config = {
            "in_features": weight.shape[1],
            "out_features": weight.shape[0],
            "bias": True,
            "activation_function": f"torch.nn.modules.{activation}",
        }
        files.write_json(folder / place / "config.json", config)
        save_tensors(_contiguous({"linear.weight": weight, "linear.bias": bias}), folder / place / "model.safetensors")


DenseLayer = tuple[Tensor, Tensor, str]  # weight (out, in), bias (out,), activation's path below torch.nn.modules
GELU, IDENTITY = "activation.GELU", "linear.Identity"


@torch.no_grad()
def _as_dense_layers(head: nn.Module) -> list[DenseLayer]:
    if isinstance(head, ResidualHead):
        skip, inner, outer = head.skip.weight, head.inner, head.outer
        unit = torch.eye(skip.shape[0], device=skip.device)
        none = torch.zeros(2 * skip.shape[0], device=skip.device)
        first = torch.cat([inner.weight, skip, -skip]) * head.scale
        return [
            (first, torch.cat([inner.bias, none]), GELU),
            (torch.cat([outer.weight, unit, -unit], dim=1), outer.bias, IDENTITY),
        ]
    if isinstance(head, MlpHead):
        first_layer, last_layer = head[0], head[3]
        assert isinstance(first_layer, nn.Linear)
        assert isinstance(last_layer, nn.Linear)
        return [(first_layer.weight, first_layer.bias, GELU), (last_layer.weight, last_layer.bias, IDENTITY)]
    return []


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
