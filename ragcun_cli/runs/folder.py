"""A run's folder: the names of its files, and readers of those that a run may be writing just now."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.files import expanded
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.status import ArmSummary, Progress, Status
from ragcun_cli.secrets import redacted
from ragcun_cli.streams import lost_log

RECIPE, ENVIRONMENT, STATUS = "recipe.yaml", "environment.json", "status.json"
MODEL_ORIGIN = "training.json"  # in a model folder: the step at which it was saved
METRICS, SPEED = "metrics.jsonl", "speed.jsonl"
CHECKPOINTS, BEST_MODEL, FINAL_MODEL = "checkpoints", "best_model", "final_model"
WORKER_LOGS = "workers"
Record = dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """The paths inside `output_dir`."""

    root: Path

    @classmethod
    def of(cls, recipe: Recipe) -> RunFolder:
        """The folder a recipe trains into."""
        return cls(expanded(recipe.output_dir))

    @property
    def recipe(self) -> Path:
        return self.root / RECIPE

    @property
    def environment(self) -> Path:
        return self.root / ENVIRONMENT

    @property
    def status(self) -> Path:
        return self.root / STATUS

    @property
    def metrics(self) -> Path:
        return self.root / METRICS

    @property
    def speed(self) -> Path:
        return self.root / SPEED

    @property
    def checkpoints(self) -> Path:
        return self.root / CHECKPOINTS

    @property
    def best_model(self) -> Path:
        return self.root / BEST_MODEL

    @property
    def final_model(self) -> Path:
        return self.root / FINAL_MODEL

    @property
    def worker_logs(self) -> Path:
        return self.root / WORKER_LOGS

    def epoch_model(self, epoch: int) -> Path:
        """The model at the end of an epoch, counted from 1."""
        return self.root / f"checkpoint_epoch_{epoch}"

    def small_files(self) -> list[Path]:
        """Return those of recipe, environment, status and logs that exist."""
        return [path for path in self.small_files_in_order() if path.is_file()]

    def small_files_in_order(self) -> list[Path]:
        """Return all possible small files: the recipe first and the status, which vouches for the others, last."""
        return [self.recipe, self.environment, self.metrics, self.speed, self.status]

    def state(self) -> str:
        """Return `running`, `interrupted`, `failed` or `finished`; empty if there has been no run."""
        found = Status.find(self.status)
        return "" if found is None else found.state

    def progress(self) -> Progress:
        """Return the run's last recorded progress; that of a new run if none is recorded."""
        found = Status.find(self.status)
        return Progress() if found is None else found.progress

    def has_its_models(self, recipe: Recipe) -> bool:
        """Whether the models that a finished run keeps exist."""
        kept = recipe.keep_models
        if kept == "none" or (kept == "best" and self.best_model.is_dir()):
            return True
        return self.final_model.is_dir()

    def summary(self, recipe: Recipe) -> ArmSummary:
        """Return the summary of a finished run."""
        progress, kept = self.progress(), [each for each in (self.best_model, self.final_model) if each.is_dir()]
        model = str(kept[0]) if kept else ""
        return ArmSummary(recipe.name, str(self.root), model, progress.step, progress.best_step, progress.best_score)

    def write_status(
        self, state: str, progress: Progress, total_steps: int, reason: str = "", exit_code: int | None = None
    ) -> None:
        """Replace status.json, which also says whether log output was lost.

        reason: why a run has stopped; exit_code: its command's exit code.
        """
        status = Status(state, progress, total_steps, redacted(reason), exit_code, lost_log())
        status.write(self.status)


def read_records(path: Path) -> list[Record]:
    """Read all records; empty if there is no file.

    Raises:
        ValueError: if a line is not JSON.
    """
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def whole_records(path: Path) -> list[Record]:
    """Read the records on complete lines: the last one may be half written. Empty if nothing can be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]
    except (OSError, ValueError):
        return []


def read_resolved_recipe(path: Path) -> Record:
    """Read a recipe.yaml that training wrote, with every value resolved.

    Raises:
        OSError, ValueError: if it cannot be read, or is not a mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    if not isinstance(content, dict):
        raise ValueError("not a mapping")
    return content


def read_environment(path: Path) -> Record:
    """Read a run's environment.json.

    Raises:
        OSError, ValueError: if it cannot be read.
    """
    content: Record = json.loads(path.read_text(encoding="utf-8"))
    return content


def find_environment(path: Path) -> Record:
    """Read environment.json; empty if it cannot be read."""
    try:
        return read_environment(path)
    except (OSError, ValueError):
        return {}
