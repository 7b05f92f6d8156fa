"""TensorBoard and Weights & Biases, through Accelerate's trackers."""

from __future__ import annotations

import contextlib
import importlib.util
import netrc
import os
import urllib.parse
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator

from ragcun_cli.console import note
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import RunFolder

PROJECT = "ragcun"
TRACKERS_FOLDER = "trackers"  # in the run folder; TensorBoard: `tensorboard --logdir checkpoints`


def require_trackers(recipe: Recipe) -> None:
    """Refuse a tracker whose package is not installed; Accelerate would silently leave it out.

    Raises:
        EnvironmentUnfit: naming the package and how to install it.
    """
    for tracker in recipe.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise EnvironmentUnfit(
                f"trackers: {tracker} is not installed",
                f"pip install 'ragcun[{tracker}]', or leave it out: metrics.jsonl is always written.",
            )

    if "wandb" in recipe.trackers:
        _require_wandb_login()


WANDB_MODES = ("online", "offline", "disabled", "shared")


def _require_wandb_login() -> None:
    """Require a wandb login now: wandb would ask on a terminal, or fail after all texts are encoded."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode not in WANDB_MODES:
        allowed = ", ".join(WANDB_MODES)
        raise EnvironmentUnfit(f"WANDB_MODE: {mode} is not one of {allowed}", "WANDB_MODE=offline needs no account.")
    if mode in ("offline", "disabled") or os.environ.get("WANDB_API_KEY"):
        return
    host = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        if netrc.netrc().authenticators(host):  # where `wandb login` puts the key
            return
    raise EnvironmentUnfit(
        "trackers: wandb has no API key",
        "Set WANDB_API_KEY (a .env will do), run `wandb login`, or set WANDB_MODE=offline.",
    )


def start_trackers(accelerator: Accelerator, recipe: Recipe, folder: RunFolder, run_id: str, step: int = 0) -> None:
    """Open the recipe's trackers; `run_id` lets a run resumed at `step` continue the same tracker run.

    Raises:
        EnvironmentUnfit: if one cannot be opened.
    """
    if not recipe.trackers:
        return
    place = folder.root / TRACKERS_FOLDER
    place.mkdir(exist_ok=True)
    wandb = {"name": folder.root.name, "group": recipe.name, "dir": str(place), "id": run_id, "resume": "allow"}
    # TensorBoard then hides what was logged after the checkpoint, before the run was stopped.
    tensorboard = {"purge_step": step + 1} if step else {}
    kwargs = {"wandb": wandb, "tensorboard": tensorboard}
    try:
        accelerator.init_trackers(PROJECT, config=dict(_flat(recipe.model_dump())), init_kwargs=kwargs)
    except Exception as error:  # whatever a tracker's own package raises
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise EnvironmentUnfit(
            f"trackers: {reason}",
            "Fix it, or leave the tracker out: metrics.jsonl is always written.",
        ) from error


def track(accelerator: Accelerator, figures: Mapping[str, Any], step: int) -> None:
    """Log those figures that are not None to the open trackers."""
    if accelerator.trackers:
        accelerator.log({name: figure for name, figure in figures.items() if figure is not None}, step=step)


def end_trackers(accelerator: Accelerator) -> None:
    """Close the trackers; an error while closing must not hide how the run ended."""
    try:
        # Not accelerator.end_training, which also destroys the process group: gloo then waits, sometimes for ever,
        # for peers that have left already.
        for tracker in accelerator.trackers:
            tracker.finish()
    except Exception as error:
        note(f"a tracker did not close: {error!r}")


def _flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Flatten nested values to dotted keys, each value of a type that every tracker accepts."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{above}{key}.")
        else:
            pairs.append((above + key, value if isinstance(value, int | float | str | bool) else str(value)))
    return pairs
