"""AdamW with one learning rate for the encoder and one for everything new."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ragcun_cli.losses.objective import Objective
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.train.sharded import spread_like


def build_optimiser(encoder: IsotropicGaussianEncoder, recipe: Recipe) -> torch.optim.AdamW:
    """Build AdamW; each parameter group carries its full rate as `full_rate` and its name as `part`.

    Weight decay applies to matrices only: biases and LayerNorm weights have no reason to be near zero.
    """
    groups = [
        *_groups("base", encoder.network.parameters(), recipe.base_learning_rate, recipe.weight_decay),
        *_groups("projection", encoder.head.parameters(), recipe.projection_learning_rate, recipe.weight_decay),
    ]
    # Fused: one pass over the memory instead of several, where torch supports it.
    return torch.optim.AdamW(groups, fused=encoder.device.type in ("cpu", "cuda"))


def add_objective(optimiser: torch.optim.Optimizer, objective: Objective, recipe: Recipe) -> None:
    """Add the objective's own parameter, a learned temperature, if there is one.

    Added separately because FSDP2 must know every parameter of the optimiser that it wraps.
    """
    # Weight decay would make the temperature drift towards 1.
    for group in _groups("projection", objective.parameters(), recipe.projection_learning_rate, 0.0):
        optimiser.add_param_group(group)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Set each group's learning rate to its full rate times `factor`, and return part -> rate."""
    rates = {}
    for group in optimiser.param_groups:
        group["lr"] = group["full_rate"] * factor
        rates[group["part"]] = group["lr"]
    return rates


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the live state as flat named tensors, `<parameter number>.<moment>`, for a file without pickle."""
    state: dict[int, dict[str, Any]] = optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value).detach()
        for number, moments in state.items()
        for name, value in moments.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the whole tensors that `optimiser_tensors` returned. The groups come from the recipe and stay."""
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        parameter = parameters[int(number)]
        moment = spread_like(tensor, parameter) if tensor.shape == parameter.shape else tensor
        state.setdefault(int(number), {})[name] = moment
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _groups(part: str, parameters: Iterable[nn.Parameter], rate: float, decay: float) -> list[dict[str, Any]]:
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    split = [
        ([parameter for parameter in trainable if parameter.ndim >= 2], decay),
        ([parameter for parameter in trainable if parameter.ndim < 2], 0.0),
    ]
    return [
        {"params": some, "lr": rate, "full_rate": rate, "weight_decay": its_decay, "part": part}
        for some, its_decay in split
        if some
    ]
