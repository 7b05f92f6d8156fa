"""A recipe as text: resolved YAML for people, JSON schema for editors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from ragcun_cli.recipe.schema import Recipe


class _Dumper(yaml.SafeDumper):
    """SafeDumper whose numbers our own loader reads back as the same numbers (1e-05 needs no dot there)."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Plain style only where YAML 1.1 and 1.2 agree that it is text; PyYAML's resolver knows 1.1's `no`, not `1e-4`.
    try:
        float(text)
        looks_like_number = True
    except ValueError:
        looks_like_number = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if looks_like_number else None)


_Dumper.add_representer(str, _represent_text)


def render_recipe(recipe: Recipe) -> str:
    """Resolved YAML that trains the same arm again."""
    return yaml.dump(recipe.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def render_recipe_with_comments(recipe: Recipe) -> str:
    """The same, each key under one line that says what it is: the start of a recipe of one's own."""
    return "".join(_commented(recipe.model_dump(), type(recipe), ""))


def _commented(values: Mapping[str, Any], model: type[BaseModel], indent: str) -> list[str]:
    blocks = []
    for key, value in values.items():
        field = model.model_fields[key]
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            about = (nested.__doc__ or "").strip().splitlines()[0]
            blocks.append(f"{indent}# {about}\n{indent}{key}:\n")
            blocks += _commented(value, nested, indent + "  ")
            continue
        line = yaml.dump({key: value}, Dumper=_Dumper, allow_unicode=True, width=1000)
        blocks.append(f"{indent}# {field.description}\n{indent}{line}")
    return blocks


def recipe_schema() -> str:
    """The JSON schema of a recipe file, for editors; committed as recipes/schema.json.

    A file may leave keys to its parent, so no key is required here: `ragcun recipe check` knows what is missing.
    """
    schema = Recipe.model_json_schema()
    for part in [schema, *schema["$defs"].values()]:
        part.pop("required", None)
    schema["title"] = "ragcun recipe"
    schema["properties"] = {
        "extends": {
            "type": "string",
            "title": "Extends",
            "description": "one recipe file, relative to this one, whose values this file changes",
        },
        **schema["properties"],
    }
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
