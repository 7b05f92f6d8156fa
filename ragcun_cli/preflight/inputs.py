"""Check that recipes are valid, and that their data are present and as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ragcun_cli.data.fetch.catalogue import entries
from ragcun_cli.data.registry import ALL, PUBLIC
from ragcun_cli.data.sources import dev_collection, training_file
from ragcun_cli.errors import RagcunError
from ragcun_cli.files import expanded
from ragcun_cli.preflight.checks import FAILED, OK, REMARK, Check, checked, failed
from ragcun_cli.preflight.devices import Devices
from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.recipe.schema import Recipe

VERIFIED = "verified"


def read_recipes(names: Sequence[str], overrides: Sequence[str]) -> tuple[list[Recipe], list[Check]]:
    """Return the valid recipes, and a check of each recipe."""
    recipes, checks = [], []
    for name in names:
        try:
            recipes.append(load_recipe(name, overrides))
            checks.append(Check(f"recipe {name}", OK, f"valid: {recipes[-1].description or recipes[-1].name}"))
        except RagcunError as error:
            checks.append(failed(f"recipe {name}", error))
    return recipes, checks


def check_surroundings(recipes: Sequence[Recipe]) -> list[Check]:
    """Check the trackers and backups of recipes: whether packages are installed and addresses valid."""
    named = [recipe for recipe in recipes if recipe.trackers or recipe.backup]
    if not named:
        return []
    from ragcun_cli.runs.folder import RunFolder
    from ragcun_cli.train.backup import store_of
    from ragcun_cli.train.trackers import require_trackers

    def looked_at(recipe: Recipe) -> str:
        require_trackers(recipe)
        store_of(recipe, RunFolder.of(recipe))
        return ", ".join([*recipe.trackers, *([recipe.backup] if recipe.backup else [])])

    return [checked(f"trackers and backup of {recipe.name}", partial(looked_at, recipe)) for recipe in named]


def check_precision(recipes: Sequence[Recipe], devices: Devices) -> list[Check]:
    """Check which precision `mixed_precision` selects on these devices."""
    from ragcun_cli.train.precision import Hardware, choose_precision, explain_precision

    # JSON turned the capability into a list.
    capability = devices.hardware["capability"]
    hardware = Hardware(**{**devices.hardware, "capability": None if capability is None else tuple(capability)})

    def explained(recipe: Recipe) -> str:
        return explain_precision(choose_precision(recipe.mixed_precision, hardware), hardware)

    return [checked(f"precision of {recipe.name}", partial(explained, recipe)) for recipe in recipes]


def check_data(recipes: Sequence[Recipe], needed: bool) -> list[Check]:
    """Check the training and dev data of each recipe, each source once, and count the BEIR sets present.

    needed: whether recipes train on them now; if not, missing data only cause a remark.
    """
    checks: dict[tuple[str, str], Check] = {}
    for recipe in recipes:
        folder = expanded(recipe.data.folder)
        key = (recipe.data.train, str(folder))
        if key not in checks:
            checks[key] = checked(f"training data {recipe.data.train}", partial(_training, recipe.data.train, folder))
        if recipe.data.dev is not None and ("dev " + recipe.data.dev, str(folder)) not in checks:
            look = partial(_collection, recipe.data.dev, folder)
            checks["dev " + recipe.data.dev, str(folder)] = checked(f"dev set {recipe.data.dev}", look)
    if not needed:
        checks = {key: replace(each, status=REMARK) if each.status == FAILED else each for key, each in checks.items()}
    folders = dict.fromkeys(expanded(recipe.data.folder) for recipe in recipes)
    return [*checks.values(), *(_evaluation_sets(folder) for folder in folders)]


def _training(source: str, folder: Path) -> str:
    path = training_file(source, folder)
    return _with_state(path, source, folder)


def _collection(source: str, folder: Path) -> str:
    path = dev_collection(source, folder)
    return _with_state(path, source, folder)


def _with_state(path: Path, source: str, folder: Path) -> str:
    state = next((each.state for each in entries(folder) if each.name == source), "")
    return f"{path}, {'matches its published checksum' if state == VERIFIED else 'present'}"


def _evaluation_sets(folder: Path) -> Check:
    known = entries(folder)
    rows = [each for each in known if each.kind == "evaluation"]
    here = [each for each in rows if each.state]
    verified = [each for each in here if each.state == VERIFIED]
    own = [each.name for each in known if each.kind == "own"]
    besides = f"; your own: {', '.join(own)}" if own else ""
    seen = f"{len(here)} of {len(ALL)} in {folder}/, {len(verified)} of them verified{besides}"
    if len(here) < len(PUBLIC):
        return Check("evaluation sets", REMARK, seen, "To get all public ones: ragcun data download beir")
    return Check("evaluation sets", OK, seen)
