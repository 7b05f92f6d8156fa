"""`ragcun recipe`: list, show, check, copy, schema."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer

from ragcun_cli.commands import completion
from ragcun_cli.commands.choices import SchemaFormat
from ragcun_cli.console import Column, note, print_document, print_error, print_json, print_table, print_text
from ragcun_cli.errors import ExitCode, RecipeError, UsageError

app = typer.Typer(no_args_is_help=True, help="Read, check and copy recipes. Each YAML file is one arm.")

RECIPE = typer.Argument(..., help="A recipe file, or the name of a shipped recipe.", autocompletion=completion.recipes)
RECIPES = typer.Argument(..., help="Recipe files, or names of shipped recipes.", autocompletion=completion.recipes)
SET_HELP = "Change a value of the recipe; may be given several times."


@app.command("list")
def list_recipes(json_output: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """List the recipes shipped with ragcun.

    Example: ragcun recipe list
    """
    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.recipe.shipped import shipped_recipes

    recipes = [(path, load_recipe(str(path))) for path in shipped_recipes()]
    if json_output:
        print_json([{"name": each.name, "description": each.description, "path": str(path)} for path, each in recipes])
        return
    rows = [[each.name, each.description, each.base_model] for _, each in recipes]
    print_table([Column("recipe"), Column("what it trains", wraps=True), Column("base model", wraps=True)], rows)


@app.command()
def show(
    recipe: str = typer.Argument(
        ..., help="A recipe file, or the name of a shipped recipe.", autocompletion=completion.recipes
    ),
    overrides: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help=SET_HELP),
    json_output: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Print a recipe with every value resolved, ready to train again.

    Example: ragcun recipe show isotropy --set seed=1
    """
    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.recipe.rendering import render_recipe

    resolved = load_recipe(recipe, overrides)
    if json_output:
        print_json(resolved.model_dump())
    else:
        print_document(render_recipe(resolved))


@app.command()
def check(
    recipes: list[str] = typer.Argument(
        ..., help="Recipe files, or names of shipped recipes.", autocompletion=completion.recipes
    ),
    overrides: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help=SET_HELP),
    json_output: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Report every problem in the recipes with file, line and column; exit code 3 if there are any.

    Missing data or a missing base model is reported, but is not an error in the recipe.

    Example: ragcun recipe check my-recipe.yaml
    """
    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.train.runs import missing_input

    errors: dict[str, RecipeError] = {}
    missing: dict[str, str] = {}
    for recipe in recipes:
        try:
            missing[recipe] = missing_input(load_recipe(recipe, overrides))
        except RecipeError as error:
            errors[recipe] = error
    if json_output:
        print_json([_checked(each, errors.get(each), missing.get(each, "")) for each in recipes])
    else:
        for recipe in recipes:
            if recipe in errors:
                print_error(errors[recipe])
            else:
                print_text(f"{recipe}: valid" + (f". Missing: {missing[recipe]}" if missing[recipe] else ""))
    if errors:
        raise typer.Exit(ExitCode.RECIPE)


def _checked(recipe: str, error: RecipeError | None, missing: str) -> dict[str, object]:
    if error is None:
        return {"recipe": recipe, "problems": None, "missing": missing or None}
    said = {"problems": error.message, "hint": error.hint, "kind": error.title, "exit_code": int(error.exit_code)}
    return {"recipe": recipe, **said}


@app.command()
def copy(
    recipe: str = typer.Argument(
        ..., help="A recipe file, or the name of a shipped recipe.", autocompletion=completion.recipes
    ),
    destination: Path = typer.Argument(..., help="The file to write; its name becomes the arm's name."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the file if it exists."),
    json_output: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
) -> None:
    """Write your own copy of a recipe, with a comment above each key.

    Example: ragcun recipe copy isotropy my-arm.yaml
    """
    from ragcun_cli import files
    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.recipe.rendering import render_recipe_with_comments
    from ragcun_cli.recipe.schema import RECIPE_NAME

    if destination.is_dir():
        raise UsageError(f"{destination}: is a folder", f"Name a file: {destination / 'my-arm.yaml'}")
    if re.fullmatch(RECIPE_NAME, destination.stem) is None:
        raise UsageError(
            f"{destination}: the file's name becomes the arm's name, and {destination.stem!r} cannot be one",
            "Use letters, digits, dot, - and _.",
        )
    if destination.exists() and not overwrite:
        raise UsageError(f"{destination}: the file already exists", "Give --overwrite to replace it.")
    name = json.dumps(destination.stem)
    named = load_recipe(recipe, [f"name={name}", f"output_dir={json.dumps('checkpoints/' + destination.stem)}"])
    files.write_text(destination, render_recipe_with_comments(named))
    if json_output:
        return print_json({"path": str(destination), "name": named.name, "output_dir": named.output_dir})
    return note(f"{destination}: written. Edit it, then: ragcun recipe check {destination}")


@app.command()
def schema(
    output_format: SchemaFormat = typer.Option("json", "--format", help="json for editors, or markdown for reading."),
) -> None:
    """Print every recipe key with its type, limits and default, as a JSON schema or a Markdown page.

    Example: ragcun recipe schema > schema.json
    """
    from ragcun_cli.recipe.rendering import recipe_reference, recipe_schema

    formats = {"json": recipe_schema, "markdown": recipe_reference}
    print_document(formats[output_format]())
