"""TensorBoard and Weights & Biases, through Accelerate's trackers."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator

from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.train.run_folder import RunFolder

PROJECT = "ragcun"
TRACKERS_FOLDER = "trackers"  # in the run folder; TensorBoard: `tensorboard --logdir checkpoints`


def require_trackers(recipe: Recipe) -> None:
    """Refuse a tracker whose package is not installed; Accelerate would leave it out.

    Raises:
        EnvironmentUnfit: naming the package and how to install it.
    """
    for tracker in recipe.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise EnvironmentUnfit(
                f"trackers: {tracker} is not installed",
                f"pip install 'ragcun[{tracker}]', or leave it out: metrics.jsonl is always written.",
            )


def start_trackers(accelerator: Accelerator, recipe: Recipe, folder: RunFolder, run_id: str) -> None:
    """Open the recipe's trackers; `run_id` lets a resumed run go on in the same one."""
    if not recipe.trackers:
        return
    place = folder.root / TRACKERS_FOLDER
    place.mkdir(exist_ok=True)
    wandb = {"name": folder.root.name, "group": recipe.name, "dir": str(place), "id": run_id, "resume": "allow"}
    accelerator.init_trackers(PROJECT, config=dict(_flat(recipe.model_dump())), init_kwargs={"wandb": wandb})


def track(accelerator: Accelerator, figures: Mapping[str, Any], step: int) -> None:
    """Give the figures that there are to the open trackers."""
    if accelerator.trackers:
        accelerator.log({name: figure for name, figure in figures.items() if figure is not None}, step=step)


def _flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Nested values under dotted keys, each of a type that every tracker takes."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{above}{key}.")
        else:
            pairs.append((above + key, value if isinstance(value, int | float | str | bool) else str(value)))
    return pairs
