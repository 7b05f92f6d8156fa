"""What carries the science does not change once it is made: every dataclass of these packages is frozen."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

PACKAGES = ("losses", "report.statistics", "storage")
MODULES = (
    "data.batches", "evaluate.isotropy", "results.isotropy", "results.metrics", "results.ties",
    "evaluate.transforms", "train.step",
)  # fmt: skip


def names() -> list[str]:
    found = [f"ragcun_cli.{name}" for name in MODULES]
    for package in PACKAGES:
        path = importlib.import_module(f"ragcun_cli.{package}").__path__
        found += [f"ragcun_cli.{package}.{each.name}" for each in pkgutil.iter_modules(path)]
    return found


@pytest.mark.parametrize("name", names())
def test_dataclasses_are_frozen(name: str) -> None:
    module = importlib.import_module(name)
    for _, each in inspect.getmembers(module, inspect.isclass):
        if each.__module__ == name and dataclasses.is_dataclass(each):
            assert each.__dataclass_params__.frozen, f"{name}.{each.__name__}"
