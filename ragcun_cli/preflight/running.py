"""Run all checks in turn within five minutes, and make the estimates that follow from their measurements."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

from ragcun_cli.console import note
from ragcun_cli.data.cache import cache_folder
from ragcun_cli.errors import EnvironmentUnfit, RagcunError, UsageError
from ragcun_cli.files import expanded
from ragcun_cli.preflight.base_models import check_base_models
from ragcun_cli.preflight.checks import FAILED, OK, Check, failed
from ragcun_cli.preflight.collective import check_collective
from ragcun_cli.preflight.devices import Devices, check_gpus, count_processes, find_devices
from ragcun_cli.preflight.inputs import check_data, check_precision, check_surroundings, read_recipes
from ragcun_cli.preflight.machine import (
    check_cores_and_memory,
    check_disk,
    check_limits,
    check_network,
    measure_disks,
    nearest_folder,
)
from ragcun_cli.preflight.packages import check_packages, check_python
from ragcun_cli.preflight.short_training import try_training
from ragcun_cli.quantities import counted, shown_bytes
from ragcun_cli.recipe.estimates import Estimate
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.recipe.trial_figures import Trial, estimate_of_trial

SECONDS = 290.0  # that the checks may take of five minutes; cleaning up takes the rest
SECONDS_FOR_PROCESSES_TO_MEET = 60.0
SCRATCH = ".ragcun-preflight-"
SIGNAL_EXIT = 128  # plus the signal's number, as in shells


@dataclass(frozen=True)
class PreflightOptions:
    """Options of preflight. recipes: names or files; overrides: for each. gpus: how many are required. trains: whether
    to run the short trainings. constraints: the list of tested versions.
    """

    recipes: tuple[str, ...]
    overrides: tuple[str, ...]
    constraints: Path
    gpus: int
    trains: bool


@dataclass(frozen=True)
class Report:
    """The checks, the valid recipes, and for those that trained, by name, the estimates for this machine and how
    many triples they have.
    """

    checks: list[Check]
    recipes: list[Recipe]
    estimates: dict[str, Estimate]
    triples: dict[str, int]

    @property
    def failures(self) -> list[Check]:
        """The checks that would stop the experiment."""
        return [check for check in self.checks if check.status == FAILED]


def run_checks(wishes: PreflightOptions) -> Report:
    """Run all checks except those of AWS. Ends whatever it started, even on Ctrl-C, and leaves nothing behind."""
    deadline = time.monotonic() + SECONDS
    recipes, of_recipes = read_recipes(wishes.recipes, wishes.overrides)
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise UsageError(f"--recipe: two recipes are called {max(names, key=names.count)}", "Give each its own name.")
    checks = [check_python(), check_packages(wishes.constraints)]
    with _ending_cleanly(), _scratch(Path(recipes[0].output_dir) if recipes else Path()) as scratch:
        note("preflight: devices ...")
        devices = _devices(scratch, deadline)
        processes = count_processes(devices)
        checks += [check_gpus(devices, wishes.gpus)]
        if isinstance(devices, RagcunError):
            return Report([*checks, *of_recipes], recipes, {}, {})
        checks += [check_cores_and_memory(processes), *check_limits(processes)]
        if processes > 1:
            note(f"preflight: {processes} processes together ...")
            soon = min(deadline, time.monotonic() + SECONDS_FOR_PROCESSES_TO_MEET)
            checks.append(check_collective(processes, scratch, soon))
        note("preflight: disks and network ...")
        checks += [*_disks(recipes), *check_network(), *of_recipes]
        note("preflight: base models and data ...")
        checks += [*check_base_models(recipes, scratch, deadline), *check_data(recipes, wishes.trains)]
        checks += check_surroundings(recipes)
        if devices.hardware:
            checks += check_precision(recipes, devices)
        broken = {check.name for check in checks if check.status == FAILED}
        estimates: dict[str, Estimate] = {}
        triples: dict[str, int] = {}
        for number, recipe in enumerate(recipes if wishes.trains else []):
            if missing := _missing(recipe, broken):
                cure = "Fix these failed checks first."
                checks.append(Check(f"{recipe.name}: steps", FAILED, f"not tried: failed {', '.join(missing)}", cure))
                continue
            # Each gets its share of the remaining time, so that a slow one leaves some for the others.
            share = (deadline - time.monotonic()) / (len(recipes) - number)
            note(f"preflight: a short training of {recipe.name} ...")
            own = scratch / recipe.name
            own.mkdir()
            tried = try_training(recipe, own, time.monotonic() + share)
            shutil.rmtree(own, ignore_errors=True)
            checks += tried.checks
            if tried.trial is not None:
                estimates[recipe.name] = estimate_of_trial(recipe, Trial(**tried.trial), processes)
                triples[recipe.name] = tried.trial["triples"]
        if estimates:
            checks += _room(recipes, estimates)
    return Report(checks, recipes, estimates, triples)


def _devices(scratch: Path, deadline: float) -> Devices | RagcunError:
    try:
        return find_devices(scratch, deadline)
    except RagcunError as error:
        return error


def _disks(recipes: Sequence[Recipe]) -> list[Check]:
    places = [
        (use, place)
        for recipe in recipes
        for use, place in (
            ("checkpoints", expanded(recipe.output_dir)),
            ("data", expanded(recipe.data.folder)),
        )
    ]
    try:
        places.append(("caches", cache_folder()))
        return [check_disk(disk) for disk in measure_disks(places or [("this folder", Path())])]
    except RagcunError as error:
        return [failed("disk", error)]
    except OSError as error:
        return [Check("disk", FAILED, str(error), "Choose folders that you can write to.")]


def _missing(recipe: Recipe, broken: set[str]) -> list[str]:
    """Return those of a recipe's needs that have already failed."""
    needs = [
        f"base model {recipe.base_model}",
        f"training data {recipe.data.train}",
        f"dev set {recipe.data.dev}",
        f"precision of {recipe.name}",
        f"trackers and backup of {recipe.name}",
    ]
    return [need for need in needs if need in broken]


def _room(recipes: Sequence[Recipe], estimates: dict[str, Estimate]) -> list[Check]:
    """Check that all runs, of all seeds, fit on the disks that they are written to."""
    of_disk: dict[int, list[Recipe]] = {}
    for recipe in recipes:
        if recipe.name in estimates:
            of_disk.setdefault(_place(recipe).stat().st_dev, []).append(recipe)
    return [_room_on(_place(group[0]), group, estimates) for group in of_disk.values()]


def _place(recipe: Recipe) -> Path:
    return nearest_folder(expanded(recipe.output_dir))


def _room_on(place: Path, recipes: Sequence[Recipe], estimates: dict[str, Estimate]) -> Check:
    runs = {recipe.name: len(recipe.seeds or [recipe.seed]) for recipe in recipes}
    needed = sum(estimates[name].disk * count for name, count in runs.items())
    free = shutil.disk_usage(place).free
    seen = f"{place}: {shown_bytes(needed)} needed by {counted(sum(runs.values()), 'run')}, {shown_bytes(free)} free"
    if needed > free:
        return Check("room for the runs", FAILED, seen, "Free some space, or set output_dir to another disk.")
    return Check("room for the runs", OK, seen)


@contextlib.contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Let SIGTERM and a lost terminal leave the `with` blocks as Ctrl-C does, so that they end what was started."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(SIGNAL_EXIT + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, leave) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _scratch(beside: Path) -> Iterator[Path]:
    """Make a scratch folder on the disk that runs are written to, and remove those left by killed preflights."""
    parent = nearest_folder(expanded(beside).parent)
    # On a disk shared with other machines, their processes are not known here: clear this machine's folders only.
    own = f"{SCRATCH}{platform.node()}-"
    for left in parent.glob(f"{own}*-*"):
        number = left.name.removeprefix(own).split("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{own}{os.getpid()}-", dir=parent))
    except OSError as error:
        raise EnvironmentUnfit(
            f"{beside}: nothing can be written to {parent} ({error.strerror})", "Try --set output_dir=FOLDER"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
