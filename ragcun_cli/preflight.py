"""What would stop an experiment on this machine, found before it starts: packages, GPUs, disk, recipes, base models."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ragcun_cli.errors import RagcunError
from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.recipe.schema import Recipe

PINNED = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "safetensors", "pyarrow")
LEAST_FREE_GIB = 10
OK, REMARK, FAILED = "ok", "remark", "failed"


@dataclass(frozen=True)
class Check:
    """status: ok, remark (go on, but know it) or failed; seen: what was found; cure: what to do about it."""

    name: str
    status: str
    seen: str
    cure: str = ""


def run_checks(recipes: Sequence[str], constraints: Path, gpus: int) -> Iterator[Check]:
    """One after another. gpus: how many there must be."""
    yield _packages(constraints)
    yield _gpus(gpus)
    yield _disk()
    loaded = []
    for name in recipes:
        try:
            loaded.append(load_recipe(name))
            yield Check(f"recipe {name}", OK, f"valid: {loaded[-1].description or loaded[-1].name}")
        except RagcunError as error:
            yield Check(f"recipe {name}", FAILED, error.message, error.hint)
    for recipe in {(each.base_model, each.base_revision): each for each in loaded}.values():
        yield _asked(f"base model {recipe.base_model}", partial(_base_model, recipe))
    for recipe in loaded:
        yield _asked(f"precision of {recipe.name}", partial(_precision, recipe))


def _asked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, OK, look())
    except RagcunError as error:
        return Check(name, FAILED, error.message, error.hint)


def _packages(constraints: Path) -> Check:
    """Compared with the set that the tests ran with, where its list is here."""
    here = {name: importlib.metadata.version(name) for name in PINNED}
    shown = ", ".join(f"{name} {version}" for name, version in here.items())
    if not constraints.is_file():
        return Check("packages", OK, shown)
    tested = _pins(constraints)
    other = [
        f"{name} {version} (tested: {tested[name]})"
        for name, version in here.items()
        if tested.get(name, version) != version.split("+")[0]
    ]
    if other:
        return Check("packages", REMARK, ", ".join(other), f"pip install -c {constraints} '.[demo]', in the checkout")
    return Check("packages", OK, f"the tested set: {shown}")


def _pins(constraints: Path) -> dict[str, str]:
    """Versions of `name==version` lines that hold for this Python."""
    from packaging.requirements import Requirement

    lines = (line.split("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines())
    wanted = [Requirement(line) for line in lines if line]
    holding = [each for each in wanted if each.marker is None or each.marker.evaluate()]
    return {each.name: next(iter(each.specifier)).version for each in holding if each.specifier}


def _gpus(wanted: int) -> Check:
    import torch

    count = torch.cuda.device_count()
    if count < wanted:
        return Check("GPUs", FAILED, f"{count} of {wanted}", "Does torch fit the NVIDIA driver (nvidia-smi)?")
    if not count:
        return Check("GPUs", OK, "none: the CPU trains")
    names = []
    for number in range(count):
        try:
            torch.ones(64, 64, device=f"cuda:{number}").matmul(torch.ones(64, 64, device=f"cuda:{number}"))
            torch.cuda.synchronize(number)
        except RuntimeError as error:
            return Check("GPUs", FAILED, f"GPU {number}: {str(error).splitlines()[0]}", "See nvidia-smi.")
        own = torch.cuda.get_device_properties(number)
        names.append(f"{own.name} {own.total_memory / (1 << 30):.0f} GiB")
    return Check("GPUs", OK, ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)))


def _disk() -> Check:
    free = shutil.disk_usage(Path()).free / (1 << 30)
    if free < LEAST_FREE_GIB:
        return Check("disk", FAILED, f"{free:.1f} GiB are free here", f"Free {LEAST_FREE_GIB} GiB.")
    return Check("disk", OK, f"{free:.0f} GiB are free here")


def _base_model(recipe: Recipe) -> str:
    from ragcun_cli.model.sources import locate_model, weights_identity

    files = locate_model(recipe.base_model, recipe.base_revision)
    return f"here, weights {weights_identity(files.folder)[:16]}"


def _precision(recipe: Recipe) -> str:
    from ragcun_cli.train.hardware import choose_precision, explain_precision, find_hardware

    hardware = find_hardware()
    return explain_precision(choose_precision(recipe.mixed_precision, hardware), hardware)
