"""From a recipe file to a Recipe: its parents, the `--set` values over it, and every problem at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ragcun_cli.errors import RecipeError
from ragcun_cli.recipe.problems import Problem, SourceLocation, did_you_mean, render_problems
from ragcun_cli.recipe.schema import Recipe, misfits
from ragcun_cli.recipe.shipped import find_recipe
from ragcun_cli.recipe.source import Path_, Source, merge, parse_value, read_source

MISSING = "this key is missing"


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read, extend, override and validate.

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
    place = child.places.pop(("extends",))
    if not isinstance(parent_name, str):
        child.problems.append(Problem(place, f"extends: one file name is expected (got {parent_name!r})"))
        return dataclasses.replace(child, readable=False)
    parent_path = path.parent / parent_name
    line = (*above, path)
    if parent_path.resolve() in [seen.resolve() for seen in line]:
        circle = " -> ".join(str(seen) for seen in (*line, parent_path))
        child.problems.append(Problem(place, f"extends: the recipes extend each other in a circle: {circle}"))
        return dataclasses.replace(child, readable=False)
    if not parent_path.is_file():
        child.problems.append(Problem(place, f"extends: there is no file {parent_path}"))
        return dataclasses.replace(child, readable=False)
    parent = _read_with_parents(parent_path, line)
    # A parent's name is its own: an arm that forgot to say its name must not train into its parent's folder.
    for own in ("name", "output_dir", "description"):
        parent.values.pop(own, None)
    return Source(
        values=merge(parent.values, child.values),
        places={**parent.places, **child.places},
        problems=parent.problems + child.problems,
        readable=parent.readable and child.readable,
    )


def _apply_overrides(source: Source, overrides: Sequence[str]) -> None:
    for override in overrides:
        place = SourceLocation(f"--set {override}")
        key, equals, text = override.partition("=")
        path: Path_ = tuple(key.split("."))
        if not equals or not all(path):
            source.problems.append(Problem(place, "expected key=value"))
            continue
        if path == ("extends",):
            source.problems.append(Problem(place, "extends: only a recipe file can extend another"))
            continue
        value, problems = parse_value(text, place)
        source.problems += problems
        if problems:
            continue
        nested = functools.reduce(lambda below, part: {part: below}, reversed(path), value)
        source.values = merge(source.values, nested)
        # Whatever the file said at or below this key is gone, and with it its places.
        source.places = {p: at for p, at in source.places.items() if p[: len(path)] != path}
        source.places[path] = place


def _validate(source: Source, path: Path) -> tuple[Recipe | None, list[Problem]]:
    try:
        recipe = Recipe.model_validate(source.values)
        return recipe, source.problems + [_misfit(key, problem, source, path) for key, problem in misfits(recipe)]
    except ValidationError as error:
        found = [_problem(dict(each), source, path) for each in error.errors(include_url=False)]
        if not source.readable:  # what a parent that could not be read would have said is not missing
            found = [each for each in found if not each.message.endswith(MISSING)]
        return None, source.problems + found


def _problem(error: dict[str, Any], source: Source, path: Path) -> Problem:
    location: Path_ = error["loc"]
    place = _nearest_place(location, source, path)
    key = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        return Problem(place, f"{key}: unknown key; {did_you_mean(str(location[-1]), known)}")
    if error["type"] == "missing":
        return Problem(place, f"{key}: {MISSING}")
    if error["type"] == "list_type":
        given = error["input"] if isinstance(error["input"], str) else "a, b"
        return Problem(place, f"{key}: expected a list, such as [{given}] (got {error['input']!r})")
    message = error["msg"][0].lower() + error["msg"][1:]
    return Problem(place, f"{key}: {message} (got {error['input']!r})")


def _unused_seed(recipe: Recipe, source: Source) -> list[Problem]:
    """A seed given on the command line for a recipe that names several: it would change nothing."""
    place = source.places.get(("seed",))
    if recipe.seeds is None or place is None or place.line:
        return []
    return [Problem(place, f"seed: the recipe has seeds: {recipe.seeds}; use --seeds, or --set seeds=null too")]


def _misfit(key: str, problem: str, source: Source, path: Path) -> Problem:
    return Problem(_nearest_place(tuple(key.split(".")), source, path), f"{key}: {problem}")


def _nearest_place(location: Path_, source: Source, path: Path) -> SourceLocation:
    for length in range(len(location), 0, -1):
        if location[:length] in source.places:
            return source.places[location[:length]]
    # `--set dat.train=x` wrote below a key that nobody wrote: the place is the first one below.
    below = (place for at, place in source.places.items() if at[: len(location)] == location)
    return next(below, SourceLocation(str(path)))


def _keys_at(location: Path_) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel))
    keys = list(model.model_fields)
    return [*keys, "extends"] if model is Recipe else keys
