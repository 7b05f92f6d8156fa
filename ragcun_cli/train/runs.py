"""Resolve a command's recipes and seeds, and refuse bad ones at once, without importing torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ragcun_cli.data.sources import PREFIX, dev_collection, training_file
from ragcun_cli.errors import RagcunError, UsageError
from ragcun_cli.files import expanded
from ragcun_cli.model.sources import model_is_here, require_model, require_place
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import RunFolder
from ragcun_cli.runs.status import FINISHED, ArmSummary


def one_per_seed(recipe: Recipe, seeds: Sequence[int] | None) -> list[Recipe]:
    """Return the recipe once per seed, each with its own folder; unchanged if no seeds are given."""
    wanted = list(seeds) if seeds is not None else recipe.seeds
    if wanted is None:
        return [recipe]
    return [
        recipe.model_copy(update={"seed": seed, "seeds": None, "output_dir": f"{recipe.output_dir}-seed{seed}"})
        for seed in wanted
    ]


def require_distinct_folders(recipes: Sequence[Recipe]) -> None:
    """Refuse two runs in one folder.

    Raises:
        UsageError: naming both.
    """
    folders: dict[Path, Recipe] = {}
    for recipe in recipes:
        root = RunFolder.of(recipe).root
        other = folders.setdefault(root.resolve(), recipe)
        if other is not recipe:
            raise UsageError(
                f"{root}: two runs would train into this folder: {other.name} (seed {other.seed}) and "
                f"{recipe.name} (seed {recipe.seed})",
                "Give each recipe its own output_dir; for two seeds of one recipe, use --seeds 0,1.",
            )


def require_inputs(recipe: Recipe) -> None:
    """Refuse a recipe whose data are missing, and fetch its base model if that is missing.

    Raises:
        UsageError, ModelError, EnvironmentUnfit: naming the key and how to get what is missing.
    """
    require_data(recipe)
    require_model(recipe.base_model, recipe.base_revision)


def missing_input(recipe: Recipe) -> str:
    """Name the first of data and base model that is missing, and how to get it; empty if none. Fetches nothing."""
    try:
        require_data(recipe)
        require_place(recipe.base_model)
    except RagcunError as error:
        return f"{error.message}. {error.hint}"
    if not model_is_here(recipe.base_model, recipe.base_revision):
        return f"base_model: {recipe.base_model}. `ragcun train` fetches it from the hub."
    return ""


def require_data(recipe: Recipe) -> None:
    """Refuse a recipe whose data are missing.

    Raises:
        UsageError: naming the key and how to get what is missing.
    """
    root, data = expanded(recipe.data.folder), recipe.data
    if not data.train.startswith(PREFIX):
        training_file(data.train, root)
    if data.dev is not None and not data.dev.startswith(PREFIX):
        dev_collection(data.dev, root)
    for source in data.exclude:
        if not source.startswith(PREFIX):
            dev_collection(source, root, "data.exclude: ")


def finished_summary(recipe: Recipe) -> ArmSummary | None:
    """Return the summary of a finished run that has all it should keep; None if something is left to do.

    A run with a backup is never assumed finished: its last copies may have been interrupted.
    """
    folder = RunFolder.of(recipe)
    if recipe.backup is not None or folder.state() != FINISHED or not folder.has_its_models(recipe):
        return None
    return folder.summary(recipe)
