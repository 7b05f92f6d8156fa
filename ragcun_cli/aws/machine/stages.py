"""The stages of a run on its machine, in order: what each executes, and how long it may take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from ragcun_cli.aws.machine.context import MachineContext
from ragcun_cli.aws.machine.inputs import UNTOUCHED
from ragcun_cli.aws.machine.nodes import Place

RAGCUN = (sys.executable, "-m", "ragcun_cli")
MINUTE, HOUR = 60.0, 3600.0
SILENCE = HOUR  # training logs every few steps, and encoding every ten seconds
MEMORY_OF_SEARCH = "4GiB"


@dataclass(frozen=True)
class Command:
    """One process of a stage. output: file for its standard output, in place of the log. may_fail: whether the stage
    succeeds without it."""

    arguments: tuple[str, ...]
    output: Path | None = None
    may_fail: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage. commands: what it executes, from the working folder as it is then.

    longest: seconds, after which it is ended as failed; None where only --max-hours limits it. longest_silence: seconds
    in which nothing was written, after which the same: GPUs that wait for one another for ever look busy. uses_gpus:
    whether these should be busy.
    """

    name: str
    commands: Callable[[Path], list[Command]]
    longest: float | None = None
    longest_silence: float | None = None
    uses_gpus: bool = False


def stages_of(context: MachineContext, place: Place | None) -> list[Stage]:
    """Return the stages of this machine. place: its number among several nodes, and where they meet."""
    launch, attempt = context.launch, context.attempt
    if not launch.recipes:
        return _staging(launch.downloads)
    gpus = ("--gpus", str(attempt.gpus))
    stages = [Stage("fetching", _module("ragcun_cli.aws.machine.inputs"), 3 * HOUR)]
    stages.append(
        Stage("preflight", lambda folder: [_ragcun("preflight", "--no-training", *_recipes(folder), *gpus)], HOUR)
    )
    if launch.downloads:
        stages.append(Stage("downloading", _always("data", "download", *launch.downloads), 3 * HOUR))
    # If an earlier machine has already trained, no trial is needed.
    if attempt.number == 1 and context.nodes == 1:
        stages.append(Stage("trying", lambda folder: [_ragcun("preflight", *_recipes(folder), *gpus)], HOUR))
    stages.append(_at_work("training", lambda folder: _trainings(context, place, folder)))
    if place is None or place.rank == 0:
        stages.append(_at_work("evaluating", lambda folder: [_evaluation(context, folder)]))
        stages.append(Stage("reporting", _reports, 2 * HOUR))
    return stages


def _at_work(name: str, commands: Callable[[Path], list[Command]]) -> Stage:
    return Stage(name, commands, longest_silence=SILENCE, uses_gpus=True)


def _staging(downloads: tuple[str, ...]) -> list[Stage]:
    """Return the stages of a machine that only downloads, and keeps what it gets in the bucket (`aws stage`)."""
    return [
        Stage("fetching", _module("ragcun_cli.aws.machine.inputs"), 3 * HOUR),
        Stage("downloading", _always("data", "download", *downloads), 12 * HOUR),
        Stage("staging", _module("ragcun_cli.aws.machine.staging"), 3 * HOUR),
    ]


def _ragcun(*arguments: str, output: Path | None = None, may_fail: bool = False) -> Command:
    return Command((*RAGCUN, *arguments), output, may_fail)


def _always(*arguments: str) -> Callable[[Path], list[Command]]:
    return lambda folder: [_ragcun(*arguments)]


def _module(name: str) -> Callable[[Path], list[Command]]:
    return lambda folder: [Command((sys.executable, "-m", name))]


def _recipe_files(folder: Path) -> list[Path]:
    return sorted((folder / "recipes").glob("*.yaml"))


def _recipes(folder: Path) -> list[str]:
    return [each for path in _recipe_files(folder) for each in ("--recipe", str(path))]


def _trainings(context: MachineContext, place: Place | None, folder: Path) -> list[Command]:
    if place is None:
        # Several recipes or seeds get one GPU each; a single training gets all GPUs.
        seeds = ("--seeds", ",".join(map(str, context.launch.seeds))) if context.launch.seeds else ()
        return [_ragcun("train", *_recipes(folder), *seeds, "--resume")]
    shared = ("--nodes", str(context.nodes), "--node-rank", str(place.rank), "--master", place.master)
    # All nodes share one training, so these go one after another.
    return [_ragcun("train", "--recipe", str(path), *shared, "--resume") for path in _recipe_files(folder)]


def _evaluation(context: MachineContext, folder: Path) -> Command:
    runs = [path.parent for path in sorted((folder / "checkpoints").glob("*/recipe.yaml"))]
    # Frozen arms last, just before the untouched encoders, which share their features in the cache.
    runs.sort(key=lambda run: bool(yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))["freeze_base"]))
    models = [*map(str, runs), *(folder / UNTOUCHED).read_text(encoding="utf-8").split("\n")]
    named = [each for model in models if model for each in ("--model", model)]
    return _ragcun(
        "eval", "beir", *named, "--datasets", context.launch.datasets, "--precision", context.launch.precision,
        "--cache-limit", f"{context.attempt.cache_gib}GiB", "--memory", MEMORY_OF_SEARCH,
    )  # fmt: skip


def _reports(folder: Path) -> list[Command]:
    report = folder / "report"
    tables = {"markdown": "table.md", "latex": "table.tex", "json": "table.json"}
    return [
        *(_ragcun("report", "table", "--format", name, output=report / path) for name, path in tables.items()),
        # A single arm has nothing to be compared with and thus no claims; its table is still complete.
        _ragcun("report", "claims", output=report / "claims.txt", may_fail=True),
        _ragcun("report", "page", "--out", str(report / "page.html"), may_fail=True),
    ]
