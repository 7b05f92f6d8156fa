"""Exact training state on disk: `checkpoints/step-00000030/`, whole or not there.

    model.safetensors      what trains: the head, the temperature and, unless it is frozen, the encoder
    optimiser.safetensors  AdamW's moments
    random.safetensors     the random states
    state.json             step, best dev score, loss scale
    manifest.json          size and sha256 of each of these; written last

Nothing here is a pickle. A folder without a valid manifest does not exist.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from ragcun_cli import files
from ragcun_cli.errors import ModelError
from ragcun_cli.manifest import problem_with, seal
from ragcun_cli.tensors import save_tensors
from ragcun_cli.train.optimiser import optimiser_tensors, restore_optimiser
from ragcun_cli.train.progress import Progress
from ragcun_cli.train.random_state import random_state, set_random_state

NAME = re.compile(r"^step-(\d{8})$")
KEPT = 2  # the newest may be the one that a failing disk spoils


def save_checkpoint(
    root: Path, progress: Progress, modules: dict[str, nn.Module], optimiser: Any, accelerator: Accelerator
) -> None:
    """Write the checkpoint of `progress.step` and remove all but the newest two.

    modules: name -> module, whose trainable parameters and buffers are the model's state.
    """
    scaler = accelerator.scaler
    with files.new_folder(root / f"step-{progress.step:08}") as folder:
        save_tensors(_trained_tensors(modules), folder / "model.safetensors")
        save_tensors(optimiser_tensors(optimiser), folder / "optimiser.safetensors")
        save_tensors(random_state(), folder / "random.safetensors")
        state = {
            "progress": asdict(progress),
            "loss_scale": scaler.state_dict() if scaler is not None else None,
        }
        files.write_json(folder / "state.json", state)
        seal(folder, step=progress.step)
    for old in _checkpoints(root)[KEPT:]:
        shutil.rmtree(old)


def newest_valid(root: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, and one sentence for each newer one that is not whole."""
    skipped: list[str] = []
    for folder in _checkpoints(root):
        problem = problem_with(folder)
        if problem is None:
            return folder, skipped
        skipped.append(f"{folder.name} is skipped: {problem}")
    return None, skipped


def load_checkpoint(folder: Path, modules: dict[str, nn.Module], optimiser: Any, accelerator: Accelerator) -> Progress:
    """Put everything back, the random states last.

    Raises:
        ModelError: if the tensors are not those of this recipe's model.
    """
    tensors = load_file(folder / "model.safetensors")
    current = _trained_tensors(modules)
    if {name: tensor.shape for name, tensor in tensors.items()} != {
        name: tensor.shape for name, tensor in current.items()
    }:
        raise ModelError(f"{folder}: was written by a model of another shape", "Was the base model replaced?")
    for name, module in modules.items():
        own = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}
        module.load_state_dict(own, strict=False)  # frozen parameters are not in the file
    restore_optimiser(optimiser, load_file(folder / "optimiser.safetensors"))
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if accelerator.scaler is not None and state["loss_scale"] is not None:
        accelerator.scaler.load_state_dict(state["loss_scale"])
    set_random_state(load_file(folder / "random.safetensors"))
    return Progress(**state["progress"])


def _checkpoints(root: Path) -> list[Path]:
    """Newest first."""
    if not root.is_dir():
        return []
    return sorted((path for path in root.iterdir() if NAME.match(path.name)), reverse=True)


def _trained_tensors(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    tensors = {}
    for name, module in modules.items():
        frozen = {key for key, parameter in module.named_parameters() if not parameter.requires_grad}
        for key, tensor in module.state_dict().items():
            if key not in frozen:
                tensors[f"{name}.{key}"] = tensor.detach().cpu().contiguous()
    return tensors
