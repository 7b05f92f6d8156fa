"""Find the recipes that come with ragcun: inside the package in a wheel, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from ragcun_cli.errors import RecipeError
from ragcun_cli.files import expanded
from ragcun_cli.recipe.problems import did_you_mean

ARMS = ("baseline", "isotropy", "frozen")  # the publication's arms
PACKAGE = Path(__file__).resolve().parent.parent


def shipped_folder() -> Path:
    """Return the folder of the shipped recipes."""
    in_wheel = PACKAGE / "_recipes"
    return in_wheel if in_wheel.is_dir() else PACKAGE.parent / "recipes"


def shipped_recipes() -> list[Path]:
    """Return the shipped arms by name. The parents that they extend are in a subfolder and are not arms."""
    return sorted(shipped_folder().glob("*.yaml"))


def find_recipe(name_or_path: str) -> Path:
    """Find the recipe a user means: a file of theirs, or a shipped one by name or `recipes/NAME.yaml`.

    Raises:
        RecipeError: if neither exists.
    """
    path = expanded(name_or_path)
    if path.is_file():
        return path
    names = {shipped.stem: shipped for shipped in shipped_recipes()}
    # The documentation uses `recipes/isotropy.yaml`, which must also work with only the wheel installed.
    if path.parent in (Path("."), Path("recipes")) and path.stem in names and path.suffix in ("", ".yaml"):
        return names[path.stem]
    if path.exists():
        raise RecipeError(f"{path}: this is a folder, not a recipe", "Name one of the files in it.")
    beside = [str(each) for each in path.parent.glob("*.yaml")] if path.suffix == ".yaml" else []
    meant = did_you_mean(name_or_path, beside) if beside else did_you_mean(path.stem, sorted(names))
    raise RecipeError(
        f"{name_or_path}: no such recipe; {meant}",
        "Give a recipe file, or a name that `ragcun recipe list` shows.",
    )
