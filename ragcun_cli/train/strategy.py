"""How the model is spread over processes: a whole copy in each (DDP), or a part (FSDP2).

Accelerate gets everything as objects: neither its configuration file nor its environment variables are read.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
)
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy

from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.train.precision import Hardware
from ragcun_cli.train.world import World

BYTES_PER_PARAMETER = 16  # float32 weight, gradient and Adam's two moments
SHARE_FOR_PARAMETERS = 0.5  # of a GPU's memory; the rest is for activations
# How long to wait for one process: for preparing data, not an optimiser step. With NCCL it is also how long to wait
# for a machine that vanished without notice.
LONGEST_WAIT = datetime.timedelta(minutes=30)


def choose_strategy(asked: str, world: World, parameters: int, hardware: Hardware) -> str:
    """Return `none` for a single process, else `ddp` or `fsdp`.

    Raises:
        EnvironmentUnfit: if FSDP is requested for a single process.
    """
    if world.size == 1:
        if asked == "fsdp":
            raise EnvironmentUnfit(
                "parallel: fsdp spreads a model over several processes, but there is only one",
                "Set parallel: auto, or start several processes on several GPUs with --processes.",
            )
        return "none"
    if asked != "auto":
        return asked
    memory = hardware.memory_bytes
    fits = memory is None or parameters * BYTES_PER_PARAMETER <= SHARE_FOR_PARAMETERS * memory
    return "ddp" if fits else "fsdp"


def open_accelerator(
    strategy: str, world: World, precision: str, hardware: Hardware, encoder: IsotropicGaussianEncoder, **others: Any
) -> Accelerator:
    """Open Accelerate for this strategy; `others` are its trackers' arguments.

    Raises:
        EnvironmentUnfit: if Accelerate set up anything other than what was asked for.
    """
    _unset_accelerate_environment()
    plugin = _fsdp_plugin(encoder) if strategy == "fsdp" else None
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=hardware.device == "cpu",
        fsdp_plugin=plugin,
        # Buffers are equal everywhere and stay so; a broadcast in each pass would need equal numbers of passes.
        kwargs_handlers=[
            # In families without a packed path some weights, such as an unused pooler's, get no gradient.
            DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=not encoder.is_packed),
            InitProcessGroupKwargs(timeout=LONGEST_WAIT),
        ],
        **others,
    )
    _require_as_asked(accelerator, strategy, world)
    return accelerator


def wrap(
    accelerator: Accelerator, encoder: IsotropicGaussianEncoder, optimiser: torch.optim.Optimizer
) -> tuple[Any, Any]:
    """The model to call and the optimiser to step."""
    with warnings.catch_warnings():
        # torch 2.13 renames broadcast_buffers; the older releases that ragcun runs with know only this name.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        model, wrapped = accelerator.prepare(encoder, optimiser)
    return (_autocast(accelerator, encoder) if accelerator.is_fsdp2 else model), wrapped


def _autocast(accelerator: Accelerator, encoder: IsotropicGaussianEncoder) -> Callable[[Any], Tensor]:
    """Do what Accelerate does for DDP but not for FSDP2: half-precision products, float32 weights."""

    def call(inputs: Any) -> Tensor:
        with accelerator.autocast():
            return encoder(inputs).float()

    return call


def join_process_group(world: World, hardware: Hardware) -> None:
    """Connect to the other processes before data are read; `open_accelerator` then finds them connected."""
    if world.size == 1:
        return
    torch.distributed.init_process_group("nccl" if hardware.device == "cuda" else "gloo", timeout=LONGEST_WAIT)


def _fsdp_plugin(encoder: IsotropicGaussianEncoder) -> FullyShardedDataParallelPlugin:
    """Return FSDP2's settings: one unit per transformer layer, one for the rest."""
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=True,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=encoder.layer_classes(),
        # It would read the weights in one process and broadcast them; each has read them already.
        cpu_ram_efficient_loading=False,
        state_dict_type="FULL_STATE_DICT",
        # Accelerate's policy would cast all weights to half precision, even LayerNorm's and the head's: not the same
        # arithmetic as DDP's, so that a recipe would mean two things.
        mixed_precision_policy=MixedPrecisionPolicy(),
    )


def _unset_accelerate_environment() -> None:
    """Unset Accelerate's environment variables, which would override the recipe."""
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
        del os.environ[name]


def _require_as_asked(accelerator: Accelerator, strategy: str, world: World) -> None:
    """Refuse Accelerate's silent fallbacks: to one process, to unconnected copies, from FSDP to DDP."""
    kind = accelerator.distributed_type
    right = {
        "none": kind in (DistributedType.NO, DistributedType.MULTI_CPU),
        "ddp": kind in (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU),
        "fsdp": kind == DistributedType.FSDP and accelerator.is_fsdp2,
    }[strategy]
    if accelerator.num_processes == world.size and right:
        return
    asked = {"none": "one process", "ddp": f"ddp in {world.size} processes", "fsdp": f"fsdp in {world.size} processes"}
    on_cpu = accelerator.device.type == "cpu" and strategy == "fsdp"
    if on_cpu:
        raise EnvironmentUnfit(
            f"parallel: fsdp needs GPUs; on this CPU Accelerate turns it into {kind.value}",
            "Set parallel: auto, which trains on CPUs too.",
        )
    raise EnvironmentUnfit(
        f"parallel: {asked[strategy]} was asked for, but Accelerate set up {kind.value} in {accelerator.num_processes}",
        "Is ACCELERATE_… or WORLD_SIZE set here?",
    )


@dataclasses.dataclass(frozen=True)
class ParallelLayout:
    """Strategy and processes of a run, as a checkpoint records them: what bit-exactness depends on."""

    strategy: str
    processes: int
    device: str

    def difference(self, other: ParallelLayout) -> str:
        """Describe in a phrase what differs; empty if nothing does."""
        mine, others = dataclasses.asdict(self), dataclasses.asdict(other)
        return ", ".join(
            f"{name}: {others[name]} before, {mine[name]} now" for name in mine if mine[name] != others[name]
        )
