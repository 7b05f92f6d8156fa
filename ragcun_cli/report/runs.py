"""The run folders that models come from: training curves, and what training cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.errors import DataError
from ragcun_cli.recipe.comparing import digest_but_seed
from ragcun_cli.report.collect import ModelResults
from ragcun_cli.runs.folder import (
    BEST_MODEL,
    ENVIRONMENT,
    FINAL_MODEL,
    METRICS,
    RECIPE,
    SPEED,
    read_environment,
    read_records,
    read_resolved_recipe,
)

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class RecordedRun:
    """A run's folder. metrics: one entry per logged step; scores: per dev score; speed: per reading."""

    folder: Path
    recipe: dict[str, Any]
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    speed: list[dict[str, Any]]

    @property
    def run_id(self) -> str:
        """The run's id, drawn at random when it began."""
        return str(self.environment["run_id"])

    @property
    def trainable_parameters(self) -> int:
        """The number of trainable parameters in encoder and head."""
        return int(self.environment["model"]["trainable_parameters"])

    @property
    def device(self) -> str:
        """The device as the run's plan named it, such as `NVIDIA A100-SXM4-40GB` or `CPU, 2 threads`."""
        plan = self.environment["plan"]
        return str(plan.get("device_name") or plan["device"])  # earlier versions did not record the name

    @property
    def devices(self) -> int:
        """The number of devices, one for each process."""
        return int(self.environment.get("spread", {}).get("processes", 1))

    def triples_per_second(self) -> float | None:
        """Triples per second over all steps, without dev scores and saving."""
        seconds = self._seconds()
        return self._triples() / seconds if seconds else None

    def device_hours(self) -> float | None:
        """Hours spent on steps, summed over all devices; None if nothing was logged."""
        seconds = self._seconds()
        return seconds * self.devices / SECONDS_PER_HOUR if seconds else None

    def _triples(self) -> float:
        last = self.speed[-1]["step"] if self.speed else 0
        return float(last * self.recipe["batch_size"] * self.recipe["gradient_accumulation_steps"])

    def _seconds(self) -> float:
        """Seconds spent on steps; each reading's rate is for the steps since the reading before."""
        per_step = self.recipe["batch_size"] * self.recipe["gradient_accumulation_steps"]
        before, seconds = 0, 0.0
        for reading in self.speed:
            if reading["step"] > before and reading["triples_per_second"] > 0:
                seconds += (reading["step"] - before) * per_step / reading["triples_per_second"]
                before = reading["step"]
        return seconds


def find_run(model: ModelResults, runs: Path) -> RecordedRun | None:
    """Find a model's run: by its name in `runs`, else where it was when evaluated; None if it is gone,
    or if what is there was trained with another recipe or seed.

    Raises:
        DataError: if a file of the run cannot be read.
    """
    if not model.arm or model.entry.transform != "none":
        return None
    trained = (model.arm.get("recipe"), model.seed)
    path = Path(str(model.entry.path))
    folder = path.parent if path.name in (BEST_MODEL, FINAL_MODEL) else path
    for candidate in (runs / folder.name, folder):
        if (candidate / ENVIRONMENT).is_file() and (candidate / RECIPE).is_file():
            run = _read(candidate)
            if (digest_but_seed(run.recipe), run.recipe.get("seed")) == trained:
                return run
    return None


def _read(folder: Path) -> RecordedRun:
    try:
        recipe = read_resolved_recipe(folder / RECIPE)
        environment = read_environment(folder / ENVIRONMENT)
        lines = read_records(folder / METRICS)
        run = RecordedRun(
            folder=folder,
            recipe=recipe,
            environment=environment,
            metrics=[line for line in lines if "dev" not in line],
            scores=[line for line in lines if "dev" in line],
            speed=read_records(folder / SPEED),
        )
        _ = run.run_id, run.trainable_parameters, run.device, run.device_hours()
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: its files are not those of a run ({error!r})", "Move it away.") from None
    return run
