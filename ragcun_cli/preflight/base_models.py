"""Base models: found or fetched, and loaded, by a process of its own that may take only so long.

`python -m ragcun_cli.preflight.base_models find|load NAME [REVISION]` prints as JSON what `Found` says.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ragcun_cli.console import print_error_json
from ragcun_cli.errors import RagcunError
from ragcun_cli.preflight.checks import FAILED, OK, Check, failed
from ragcun_cli.preflight.child import OutOfTime, ask
from ragcun_cli.recipe.schema import Recipe

SECONDS_TO_COME = 90.0  # a model that is fetched takes of the time that the trainings need
DIGITS_SHOWN = 23  # of an identity: "sha256:" and sixteen


@dataclass(frozen=True)
class Found:
    """identity: of the weights, `sha256:…`. state: whether it is only here, or loads."""

    identity: str
    state: str


def check_base_models(recipes: Sequence[Recipe], scratch: Path, deadline: float, how: str) -> list[Check]:
    """Each once, with its identity. how: find, where a training loads it later; or load."""
    once = dict.fromkeys((recipe.base_model, recipe.base_revision) for recipe in recipes)
    return [
        _check(how, name, revision, scratch / f"base-model-{number}.log", deadline)
        for number, (name, revision) in enumerate(once)
    ]


def _check(how: str, name: str, revision: str | None, log: Path, deadline: float) -> Check:
    called = f"base model {name}"
    soon = min(deadline, time.monotonic() + SECONDS_TO_COME)
    try:
        arguments = [how, name, *([] if revision is None else [revision])]
        found = Found(**ask("ragcun_cli.preflight.base_models", arguments, log, soon))
    except OutOfTime:
        seen = f"not here within {SECONDS_TO_COME:.0f} s"
        return Check(called, FAILED, seen, f"What came is kept. Fetch the rest before: hf download {name}")
    except RagcunError as error:
        return failed(called, error)
    return Check(called, OK, f"{found.state}, weights {found.identity[:DIGITS_SHOWN]}")


def find(name: str, revision: str | None) -> tuple[Found, Path]:
    """A base model and its folder, fetched if it is not here.

    Raises:
        RagcunError: as `locate_model` says.
    """
    from ragcun_cli.model.sources import locate_model, weights_identity

    folder = locate_model(name, revision).folder
    return Found(weights_identity(folder), "here"), folder


def load(name: str, revision: str | None) -> Found:
    """The same, and loaded.

    Raises:
        RagcunError: as `locate_model` and `load_backbone` say.
    """
    found, folder = find(name, revision)
    from ragcun_cli.model.backbone import load_backbone

    network = load_backbone(folder).network
    config: Any = network.config
    parameters = sum(each.numel() for each in network.parameters())
    return replace(found, state=f"{config.model_type} of {parameters / 1e6:.3g}M parameters loads")


def main(how: str, name: str, revision: str | None = None) -> None:
    """Print what is found."""
    print(json.dumps(asdict(load(name, revision) if how == "load" else find(name, revision)[0])))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RagcunError as error:
        print_error_json(error)
        sys.exit(error.exit_code)
