"""What tests let several processes do. Each returns plain Python or tensors on the CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ragcun_cli.errors import EnvironmentUnfit, Interrupted
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import RunFolder
from ragcun_cli.train import loop, prepare, step
from ragcun_cli.train.arm import train_arm
from ragcun_cli.train.hardware import find_hardware
from ragcun_cli.train.plan import make_plan
from ragcun_cli.train.sharded import whole
from ragcun_cli.train.stopping import Reason
from ragcun_cli.train.strategy import join_process_group
from ragcun_cli.train.training import Training
from ragcun_cli.train.world import world_of_environment
from tests.distributed import fsdp_on_cpu


def prepared(recipe: Recipe, fsdp: bool = True) -> Training:
    """Ready for the first step, in whatever world this process is in."""
    if fsdp:
        fsdp_on_cpu.enable()
    world, hardware = world_of_environment(), find_hardware()
    join_process_group(world, hardware)
    data = prepare.read_data(recipe)
    return prepare.prepare(recipe, RunFolder.of(recipe), data, make_plan(recipe, data.table, hardware), hardware, world)


def gradients(recipe: Recipe, chunk_tokens: int | None = None) -> tuple[dict[str, Tensor], float, str]:
    """Of the first step: by parameter name, whole; their norm as clipping sees it; and the strategy."""
    training = prepared(recipe)
    training.progress.chunk_tokens = chunk_tokens
    training.encoder.train()
    step._gradients(training)
    parameters = {**dict(training.encoder.named_parameters()), **dict(training.objective.named_parameters())}
    found = {name: whole(each.grad, keep=True).clone() for name, each in parameters.items() if each.grad is not None}
    return found, step._clip_gradients(training), training.spread.strategy


def train(recipe: Recipe, stop_at: int | None = None, stopping_rank: int = 0, resume: bool = False) -> int | str:
    """Train; with `stop_at`, one rank is asked to stop when so many steps are done. Returns the steps, or why not."""
    fsdp_on_cpu.enable()
    real = loop.optimiser_step

    def asking(training: Training, *rest: Any) -> Any:
        if training.progress.step + 1 == stop_at and training.world.rank == stopping_rank:
            training.stop.request(Reason.TERMINATED)
        return real(training, *rest)

    loop.optimiser_step = asking
    try:
        return train_arm(recipe, resume=resume).steps
    except Interrupted as stopped:
        return stopped.message
    finally:
        loop.optimiser_step = real


def strategy_made(recipe: Recipe) -> str:
    """Without the help that lets FSDP2 run on CPUs: the error."""
    with fsdp_on_cpu.disabled():
        try:
            prepared(recipe, fsdp=False)
        except EnvironmentUnfit as error:
            return error.message
    return "none"
