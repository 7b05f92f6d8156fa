"""What the tests of training share: recipes with changes, what a run logged, and a run stopped on its way."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import RunFolder
from ragcun_cli.train import loop, prepare
from ragcun_cli.train.hardware import find_hardware
from ragcun_cli.train.plan import make_plan
from ragcun_cli.train.training import Training


def load(small_recipe: Path, *overrides: str) -> Recipe:
    return load_recipe(str(small_recipe), overrides)


def metrics(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def prepared(recipe: Recipe) -> Training:
    data = prepare.read_data(recipe)
    plan = make_plan(recipe, data.table, find_hardware())
    return prepare.prepare(recipe, RunFolder.of(recipe), data, plan, find_hardware())


def wait_for_writers() -> None:
    """Ctrl-C waits for nobody, and ends the process; here the process goes on, and its threads with it."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint-writer":
            thread.join()


@contextlib.contextmanager
def stopped_at(step: int, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Ctrl-C when so many steps are done; `wait()` comes before it."""
    real = loop.optimiser_step

    def stopping(training: Training, before_update: Callable[[], None]) -> Any:
        if training.progress.step == step:
            wait()
            raise KeyboardInterrupt
        return real(training, before_update)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "optimiser_step", stopping)
        try:
            yield
        except KeyboardInterrupt:
            wait_for_writers()
            return
    pytest.fail(f"the run was not stopped at step {step}")
