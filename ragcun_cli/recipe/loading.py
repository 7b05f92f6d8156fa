"""Load a recipe file with its parents and the `--set` overrides, and report every problem at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ragcun_cli.errors import RecipeError
from ragcun_cli.recipe.problems import Problem, SourceLocation, did_you_mean, render_problems
from ragcun_cli.recipe.schema import Recipe, cross_field_errors
from ragcun_cli.recipe.shipped import find_recipe
from ragcun_cli.recipe.source import KeyPath, Source, merge, parse_value, read_source

MISSING = "this key is missing"


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply its parents and the overrides, and validate it.

    Args:
        name_or_path: a recipe file, or the name of a shipped one.
        overrides: `key=value` or `key.below=value`, as given to `--set`.

    Raises:
        RecipeError: naming every problem with its file, line and column.
    """
    path = find_recipe(name_or_path)
    source = _read_with_parents(path, ())
    _apply_overrides(source, overrides)
    source.values.setdefault("name", path.stem)
    source.values.setdefault("output_dir", f"checkpoints/{source.values['name']}")
    recipe, problems = _validate(source, path)
    if recipe is not None:
        problems += _unused_seed(recipe, source)
    if recipe is None or problems:
        count = len(problems)
        raise RecipeError(
            render_problems(problems),
            f"{count} problem{'s' if count != 1 else ''} in the recipe. `ragcun recipe schema` lists every key.",
        )
    return recipe


def _read_with_parents(path: Path, above: tuple[Path, ...]) -> Source:
    child = read_source(path)
    parent_name = child.values.pop("extends", None)
    if parent_name is None:
        return child
    location = child.locations.pop(("extends",))
    if not isinstance(parent_name, str):
        child.problems.append(Problem(location, f"extends: must be one file name (got {parent_name!r})"))
        return dataclasses.replace(child, readable=False)
    parent_path = path.parent / parent_name
    line = (*above, path)
    if parent_path.resolve() in [seen.resolve() for seen in line]:
        circle = " -> ".join(str(seen) for seen in (*line, parent_path))
        child.problems.append(Problem(location, f"extends: these recipes extend each other in a loop: {circle}"))
        return dataclasses.replace(child, readable=False)
    if not parent_path.is_file():
        child.problems.append(Problem(location, f"extends: no such file: {parent_path}"))
        return dataclasses.replace(child, readable=False)
    parent = _read_with_parents(parent_path, line)
    # A parent's name is not inherited: an arm without a name must not train into its parent's folder.
    for own in ("name", "output_dir", "description"):
        parent.values.pop(own, None)
    return Source(
        values=merge(parent.values, child.values),
        locations={**parent.locations, **child.locations},
        problems=parent.problems + child.problems,
        readable=parent.readable and child.readable,
    )


def _apply_overrides(source: Source, overrides: Sequence[str]) -> None:
    for override in overrides:
        location = SourceLocation(f"--set {override}")
        key, equals, text = override.partition("=")
        path: KeyPath = tuple(key.split("."))
        if not equals or not all(path):
            source.problems.append(Problem(location, "expected key=value"))
            continue
        if path == ("extends",):
            source.problems.append(Problem(location, "extends: only a recipe file can extend another"))
            continue
        value, problems = parse_value(text, location)
        source.problems += problems
        if problems:
            continue
        nested = functools.reduce(lambda below, part: {part: below}, reversed(path), value)
        source.values = merge(source.values, nested)
        # The override replaces what the file had at or below this key, so drop those locations.
        source.locations = {p: at for p, at in source.locations.items() if p[: len(path)] != path}
        source.locations[path] = location


def _validate(source: Source, path: Path) -> tuple[Recipe | None, list[Problem]]:
    try:
        recipe = Recipe.model_validate(source.values)
        return recipe, source.problems + [
            _cross_field_problem(key, problem, source, path) for key, problem in cross_field_errors(recipe)
        ]
    except ValidationError as error:
        found = [_problem(dict(each), source, path) for each in error.errors(include_url=False)]
        if not source.readable:  # an unreadable parent may have these keys
            found = [each for each in found if not each.message.endswith(MISSING)]
        return None, source.problems + found


def _problem(error: dict[str, Any], source: Source, path: Path) -> Problem:
    keys: KeyPath = error["loc"]
    location = _nearest_location(keys, source, path)
    key = ".".join(map(str, keys))
    if error["type"] == "extra_forbidden":
        known = _keys_at(keys[:-1])
        return Problem(location, f"{key}: unknown key; {did_you_mean(str(keys[-1]), known)}")
    if error["type"] == "missing":
        return Problem(location, f"{key}: {MISSING}")
    if error["type"] == "list_type":
        given = error["input"] if isinstance(error["input"], str) else "a, b"
        return Problem(location, f"{key}: must be a list, such as [{given}] (got {error['input']!r})")
    message = error["msg"][0].lower() + error["msg"][1:]
    return Problem(location, f"{key}: {message} (got {error['input']!r})")


def _unused_seed(recipe: Recipe, source: Source) -> list[Problem]:
    """Report a seed given on the command line for a recipe with several seeds, where it has no effect."""
    location = source.locations.get(("seed",))
    if recipe.seeds is None or location is None or location.line:
        return []
    return [Problem(location, f"seed: the recipe sets seeds: {recipe.seeds}; use --seeds, or add --set seeds=null")]


def _cross_field_problem(key: str, problem: str, source: Source, path: Path) -> Problem:
    return Problem(_nearest_location(tuple(key.split(".")), source, path), f"{key}: {problem}")


def _nearest_location(keys: KeyPath, source: Source, path: Path) -> SourceLocation:
    for length in range(len(keys), 0, -1):
        if keys[:length] in source.locations:
            return source.locations[keys[:length]]
    # `--set dat.train=x` created a parent key that has no location of its own: use the first location below it.
    below = (location for at, location in source.locations.items() if at[: len(keys)] == keys)
    return next(below, SourceLocation(str(path)))


def _keys_at(keys: KeyPath) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in keys:
        annotation = model.model_fields[str(part)].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel))
    known = list(model.model_fields)
    return [*known, "extends"] if model is Recipe else known
