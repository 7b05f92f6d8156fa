"""Find or fetch base models and load them, in a separate process with a time limit.

`python -m ragcun_cli.preflight.base_models NAME [REVISION]` prints a `Loaded` as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.console import print_error_json
from ragcun_cli.errors import RagcunError
from ragcun_cli.preflight.answering import OutOfTime, ask
from ragcun_cli.preflight.checks import FAILED, OK, Check, failed
from ragcun_cli.recipe.schema import Recipe

SECONDS_TO_COME = 90.0  # for all of them together: downloads use up time that the trainings need
DIGITS_SHOWN = 23  # of an identity: "sha256:" and sixteen digits digits


@dataclass(frozen=True)
class Loaded:
    """A loaded model. family: its name in transformers; parameters: how many; identity: the weights' `sha256:…`."""

    family: str
    parameters: int
    identity: str


def check_base_models(recipes: Sequence[Recipe], scratch: Path, deadline: float) -> list[Check]:
    """Check, once each, that the base models can be found or fetched and load, all within SECONDS_TO_COME."""
    once = dict.fromkeys((recipe.base_model, recipe.base_revision) for recipe in recipes)
    soon = min(deadline, time.monotonic() + SECONDS_TO_COME)
    return [
        _check(name, revision, scratch / f"base-model-{number}.log", soon)
        for number, (name, revision) in enumerate(once)
    ]


def _check(name: str, revision: str | None, log: Path, deadline: float) -> Check:
    called = f"base model {name}"
    try:
        arguments = [name, *([] if revision is None else [revision])]
        loaded = Loaded(**ask("ragcun_cli.preflight.base_models", arguments, log, deadline))
    except OutOfTime:
        fetched = f"hf download {name}" + ("" if revision is None else f" --revision {revision}")
        cure = f"What was fetched is kept. If the model is on the hub, fetch the rest first: {fetched}"
        return Check(called, FAILED, "not fetched and loaded within preflight's time limit", cure)
    except RagcunError as error:
        return failed(called, error)
    size = f"{loaded.parameters / 1e6:.3g}M parameters"
    return Check(called, OK, f"{loaded.family} with {size} loads, weights {loaded.identity[:DIGITS_SHOWN]}")


def load(name: str, revision: str | None = None) -> Loaded:
    """Find or fetch a base model, and load it.

    Raises:
        RagcunError: as in `locate_model` and `load_backbone`.
    """
    from ragcun_cli.model.backbone import load_backbone
    from ragcun_cli.model.sources import locate_model, weights_identity

    folder = locate_model(name, revision).folder
    network = load_backbone(folder).network
    config: Any = network.config
    parameters = sum(each.numel() for each in network.parameters())
    return Loaded(str(config.model_type), parameters, weights_identity(folder))


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(load(*sys.argv[1:]))))
    except RagcunError as error:
        print_error_json(error)
        sys.exit(error.exit_code)
