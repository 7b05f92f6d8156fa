"""Run the whole experiment on the built-in collection: three arms, four models, one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.console import note
from ragcun_cli.data.embedded import EmbeddedCollection, embedded_collection
from ragcun_cli.data.sources import PREFIX
from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate.datasets import find_datasets
from ragcun_cli.evaluate.evaluator import ModelToScore
from ragcun_cli.evaluate.runner import evaluate_models
from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.report.table import ResultTable
from ragcun_cli.report.tables import TableOptions, build_table
from ragcun_cli.train.arm import train_arm

MARKER = "demo.json"  # the next demo may replace the contents of a folder that has this file
ARMS = ("demo-baseline", "demo-isotropy", "demo-frozen")


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo made, where its results are, and the table."""

    collection: EmbeddedCollection
    recipes: list[Recipe]
    results: Path
    table: ResultTable


def run_demo(folder: Path, quick: bool) -> DemoOutcome:
    """Make the collection, train the arms, score them and the untouched encoder.

    Everything is written inside `folder`, replacing any earlier demo's runs and results there.

    Raises:
        RagcunError: whatever the individual steps raise.
    """
    name = "docstrings-quick" if quick else "docstrings"
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UsageError(
            f"{folder}: this folder exists and was not made by an earlier demo", "Choose another one with --folder."
        )
    files.write_json(folder / MARKER, {"collection": name})
    note("Reading the docstrings of the Python code on this machine ...")
    collection = embedded_collection(name, folder / "data")
    pairs = collection.fingerprint["pairs"]
    note(f"{pairs['train']} training triples, {pairs['dev']} dev and {pairs['test']} test queries.")
    recipes = [load_recipe(arm, _placed_below(folder, arm, name)) for arm in ARMS]
    for recipe in recipes:
        train_arm(recipe, overwrite=True)
    results = folder / "results"
    datasets, _ = find_datasets([f"{PREFIX}{name}"], folder / "data", split=None)
    models = [ModelToScore(recipes[0].base_model, max_length=recipes[0].max_length)]
    models += [ModelToScore(recipe.output_dir) for recipe in recipes]
    evaluate_models(models, datasets, results, overwrite=True)
    table = build_table(results, TableOptions(datasets=tuple(each.name for each in datasets)))
    return DemoOutcome(collection, recipes, results, table)


def _placed_below(folder: Path, arm: str, collection: str) -> list[str]:
    quoted = {
        "output_dir": folder / "checkpoints" / arm,
        "data.folder": folder / "data",
        "data.train": f"{PREFIX}{collection}",
        "data.dev": f"{PREFIX}{collection}",
    }
    return [f"{key}='{str(value).replace(chr(39), chr(39) * 2)}'" for key, value in quoted.items()]
