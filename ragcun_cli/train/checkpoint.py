"""Exact training state on disk: `checkpoints/step-00000030/`, complete or absent.

    model.safetensors      what is trained: the head, the temperature and, unless it is frozen, the encoder
    optimiser.safetensors  AdamW's moments
    random.safetensors     every process's random states, by rank
    state.json             step, position in the data, best dev score, loss scale, what the run was spread over
    run/                   recipe, environment and logs as they were: enough to resume if nothing else is left
    manifest.json          size and sha256 of each of these; written last

Tensors are stored unsharded, so that a run may resume with a different number of processes. Nothing
here is a pickle. A folder without a valid manifest counts as absent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ragcun_cli import files
from ragcun_cli.errors import ModelError
from ragcun_cli.manifest import problem_with, seal
from ragcun_cli.runs.folder import RunFolder
from ragcun_cli.runs.status import Progress
from ragcun_cli.tensors import save_tensors
from ragcun_cli.train.optimiser import optimiser_tensors, restore_optimiser
from ragcun_cli.train.random_state import first_random_state, random_state, set_random_state
from ragcun_cli.train.run_folder import checkpoints_in
from ragcun_cli.train.sharded import assign, whole
from ragcun_cli.train.strategy import ParallelLayout
from ragcun_cli.train.training import Training
from ragcun_cli.train.world import broadcast_object, gather_objects, tensors_from_main

RUN_FILES = "run"  # in a checkpoint: the small files of the run's folder


@dataclass(frozen=True)
class TrainingState:
    """What a checkpoint holds, in memory; the model's and the optimiser's tensors may still be the live ones.

    random: `<rank>.<generator>` -> state. content: state.json's. run_files: name -> bytes.
    """

    step: int
    model: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    random: dict[str, Tensor]
    content: dict[str, Any]
    run_files: dict[str, bytes]

    def size(self) -> int:
        """Return the bytes it takes on disk, give or take a few kilobytes."""
        tensors = [*self.model.values(), *self.optimiser.values()]
        return sum(each.numel() * each.element_size() for each in tensors) + sum(map(len, self.run_files.values()))

    def copied(self, buffers: dict[str, Tensor]) -> TrainingState:
        """Copy the state to the CPU, reusing the memory of earlier copies in `buffers` and leaving new memory there."""
        model = {name: _copied(f"model.{name}", tensor, buffers) for name, tensor in self.model.items()}
        optimiser = {name: _copied(f"optimiser.{name}", tensor, buffers) for name, tensor in self.optimiser.items()}
        return TrainingState(self.step, model, optimiser, self.random, self.content, self.run_files)


def _copied(name: str, tensor: Tensor, buffers: dict[str, Tensor]) -> Tensor:
    buffer = buffers.get(name)
    if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
        buffers[name] = buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    if tensor.device.type == "cpu":
        # One thread: torch's threads would take cores from the concurrent pass, and wait for each other (2.1 s for
        # 1.3 GB on two cores; 0.15 s this way).
        np.copyto(_as_bytes(buffer), _as_bytes(tensor))
    else:
        buffer.copy_(tensor, non_blocking=tensor.is_cuda)
    return buffer


def _as_bytes(tensor: Tensor) -> npt.NDArray[np.uint8]:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


def capture(training: Training) -> TrainingState | None:
    """Capture the state after `progress.step`; every process calls this, the main one gets the state.

    Its tensors are the live ones: they must not change before `copied` returns.
    """
    world, scaler = training.world, training.accelerator.scaler
    model = {name: whole(tensor, world.is_main) for name, tensor in _trained_tensors(_modules(training)).items()}
    moments = {name: whole(each, world.is_main) for name, each in optimiser_tensors(training.optimiser).items()}
    random = gather_objects(world, random_state())
    if not world.is_main:
        return None
    content = {
        "progress": asdict(training.progress),
        "loss_scale": scaler.state_dict() if scaler is not None else None,
        "spread": asdict(training.spread),
    }
    by_rank = {f"{rank}.{name}": state for rank, states in enumerate(random) for name, state in states.items()}
    return TrainingState(training.progress.step, model, moments, by_rank, content, _read_run_files(training.folder))


def write_checkpoint(root: Path, state: TrainingState) -> Path:
    """Write `root`/step-…, completely or not at all."""
    final = root / f"step-{state.step:08}"
    with files.new_folder(final) as folder:
        save_tensors({name: each.contiguous() for name, each in state.model.items()}, folder / "model.safetensors")
        save_tensors(
            {name: each.contiguous() for name, each in state.optimiser.items()}, folder / "optimiser.safetensors"
        )
        save_tensors(state.random, folder / "random.safetensors")
        files.write_json(folder / "state.json", state.content)
        for name, content in state.run_files.items():
            files.write_bytes(folder / RUN_FILES / name, content)
        seal(folder, step=state.step)
    return final


def newest_valid(root: Path) -> tuple[Path | None, list[str]]:
    """Return the newest complete checkpoint, and one sentence for each newer one that is not."""
    skipped: list[str] = []
    for folder in checkpoints_in(root):
        problem = problem_with(folder)
        if problem is None:
            return folder, skipped
        skipped.append(f"{folder.name} was skipped: {problem}")
    return None, skipped


def load_checkpoint(training: Training, folder: Path | None) -> list[str]:
    """Restore everything, random states last; `folder` is given in the main process, None in the others.

    Returns:
        One sentence for each respect in which the run will not be bit for bit what it would have been.

    Raises:
        ModelError: if the tensors are not those of this recipe's model.
    """
    world, device = training.world, training.accelerator.device
    read = {name: load_file(folder / f"{name}.safetensors") for name in PARTS} if folder else {key: {} for key in PARTS}
    content = broadcast_object(
        world, json.loads((folder / "state.json").read_text(encoding="utf-8")) if folder else None
    )
    _restore_model(training, tensors_from_main(world, read["model"], device), str(folder))
    restore_optimiser(training.optimiser, tensors_from_main(world, read["optimiser"], device))
    scaler = training.accelerator.scaler
    if scaler is not None and content["loss_scale"] is not None:
        scaler.load_state_dict(content["loss_scale"])
    training.progress = Progress(**content["progress"])
    own = f"{world.rank}."
    states = {
        name.removeprefix(own): state
        for name, state in broadcast_object(world, read["random"]).items()
        if name.startswith(own)
    }
    before = ParallelLayout(**content["spread"])
    if states and before.processes == world.size:
        set_random_state(states)
    else:
        first_random_state(training.recipe.seed, world.rank, training.progress.step)
    return _inexact(training.spread.difference(before))


PARTS = ("model", "optimiser", "random")


def _inexact(difference: str) -> list[str]:
    if not difference:
        return []
    return [
        f"not bit for bit the same from here on ({difference}): sums are rounded in a different order, and dropout "
        "draws different numbers. Order, batches and learning rates stay the same."
    ]


def restore_run_files(checkpoint: Path, folder: RunFolder) -> None:
    """Restore the run's small files as they were at the checkpoint, so that its logs end there too."""
    for log in (folder.metrics, folder.speed):
        log.unlink(missing_ok=True)
    for path in sorted((checkpoint / RUN_FILES).iterdir()):
        files.write_bytes(folder.root / path.name, path.read_bytes())


def _read_run_files(folder: RunFolder) -> dict[str, bytes]:
    # Not status.json: it describes the run's current state, not its past one.
    return {path.name: path.read_bytes() for path in folder.small_files() if path != folder.status}


def _restore_model(training: Training, tensors: dict[str, Tensor], where: str) -> None:
    current = _trained_tensors(_modules(training))
    if {name: tensor.shape for name, tensor in tensors.items()} != {
        name: tensor.shape for name, tensor in current.items()
    }:
        raise ModelError(f"{where}: was written by a model of a different shape", "Was the base model replaced?")
    with torch.no_grad():
        for name, tensor in current.items():
            assign(tensor, tensors[name])


def _modules(training: Training) -> dict[str, nn.Module]:
    return {"encoder": training.encoder, "objective": training.objective}


def _trained_tensors(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Return the live tensors that training changes, by name."""
    tensors = {}
    for name, module in modules.items():
        frozen = {key for key, parameter in module.named_parameters() if not parameter.requires_grad}
        for key, tensor in module.state_dict().items():
            if key not in frozen:
                tensors[f"{name}.{key}"] = tensor.detach()
    return tensors
