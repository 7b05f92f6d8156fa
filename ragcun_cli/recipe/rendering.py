"""Render a recipe as resolved YAML for people, and its schema for editors and the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from ragcun_cli.recipe.schema import Recipe


class _Dumper(yaml.SafeDumper):
    """SafeDumper that writes numbers so that our loader reads the same values (1e-05 needs no dot there)."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Leave text unquoted only if YAML 1.1 and 1.2 both read it as text; PyYAML handles 1.1's `no`, but not `1e-4`.
    try:
        float(text)
        looks_like_number = True
    except ValueError:
        looks_like_number = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if looks_like_number else None)


_Dumper.add_representer(str, _represent_text)


def render_recipe(recipe: Recipe) -> str:
    """Return resolved YAML that trains the same arm again."""
    return yaml.dump(recipe.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def render_recipe_with_comments(recipe: Recipe) -> str:
    """Return the YAML with a comment above each key, as a starting point for a new recipe."""
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
    """Return the JSON schema of a recipe file, for editors; committed as recipes/schema.json.

    A file may inherit keys from its parent, so no key is required here: `ragcun recipe check` finds missing ones.
    """
    schema = Recipe.model_json_schema()
    for part in [schema, *schema["$defs"].values()]:
        part.pop("required", None)
    schema["title"] = "ragcun recipe"
    schema["properties"] = {
        "extends": {
            "type": "string",
            "title": "Extends",
            "description": "a recipe file, relative to this one, whose values this file overrides",
        },
        **schema["properties"],
    }
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


# Defaults that the schema lacks: lists made by a factory, and values derived from the file's name.
DEFAULTS = {"trackers": "`[]`", "exclude": "`[]`", "extends": "", "name": "", "output_dir": ""}


def recipe_reference() -> str:
    """Return a Markdown reference of every recipe key, made from the schema; committed as docs/recipes.md."""
    schema = json.loads(recipe_schema())
    parts = [
        "# Recipes",
        "One YAML file is one arm of an experiment. A file may extend another (`extends: PARENT.yaml`) and name only "
        "the keys that differ; `ragcun recipe show NAME` prints all values, `ragcun recipe copy NAME FILE` writes "
        "your own copy. `--set KEY=VALUE` changes a key for one command; keys in a group are `group.key`.",
        "Generated from the schema by `make docs`. A value that is not allowed is rejected with its file, line and "
        "column.",
        _table(schema["properties"], schema["$defs"]),
    ]
    for name, entry in schema["properties"].items():
        definition = _definition(entry, schema["$defs"])
        if definition is not None:
            parts += [f"## {name}", definition["description"].splitlines()[0], _table(definition["properties"], {})]
    return "\n\n".join(parts) + "\n"


def _table(properties: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    lines = ["| key | value | default | what it is |", "| --- | --- | --- | --- |"]
    for key, entry in properties.items():
        if _definition(entry, definitions) is not None:
            lines.append(f"| `{key}` | | | a group of keys, [below](#{key}) |")
            continue
        default = DEFAULTS.get(key, f"`{json.dumps(entry['default'])}`" if "default" in entry else "required")
        lines.append(f"| `{key}` | {_value(entry)} | {default} | {entry['description'].replace('|', '/')} |")
    return "\n".join(lines)


def _definition(entry: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    reference = entry.get("$ref")
    return None if reference is None else definitions.get(reference.rpartition("/")[2])


def _value(entry: Mapping[str, Any]) -> str:
    """Describe the type and limits in words."""
    if "anyOf" in entry:
        return " or ".join(_value(each) for each in entry["anyOf"])
    if "enum" in entry:
        return ", ".join(f"`{each}`" for each in entry["enum"])
    kind = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}.get(
        entry["type"], entry["type"]
    )
    if entry["type"] == "array":
        return f"list of {_value(entry['items'])}"
    limits = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    said = [f"{word} {entry[limit]}" for limit, word in limits.items() if limit in entry]
    return " ".join([kind, *said])
