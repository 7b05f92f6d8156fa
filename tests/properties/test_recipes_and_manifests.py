"""Recipes and the manifests of sealed folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cli.manifest import MANIFEST, problem_with, seal
from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.storage.snapshots import fetch_folder, upload_folder
from ragcun_cli.storage.stores import FolderStore
from tests.conftest import REPOSITORY
from tests.properties.inputs import answers_or_refuses, damaged, new_folder

RECIPES = {name: REPOSITORY / "recipes" / name for name in ("isotropy.yaml", "parents/publication.yaml")}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=6), below, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(sorted([*Recipe.model_fields, "extends", "data.train", "data", "isotropy_options"]))


@given(st.dictionaries(KEYS | st.text(max_size=6), VALUES, max_size=5))
def test_any_values_are_a_recipe_or_refused_in_words(values: dict[str, Any]) -> None:
    with new_folder() as folder:
        path = folder / "mine.yaml"
        path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
        answers_or_refuses(lambda: load_recipe(str(path)))


@given(name=st.sampled_from(sorted(RECIPES)), data=st.data())
def test_a_damaged_recipe_is_read_or_refused_in_words(name: str, data: st.DataObject) -> None:
    contents = {each: path.read_bytes() for each, path in RECIPES.items()}
    contents[name] = data.draw(damaged(contents[name]))
    with new_folder() as folder:
        (folder / "parents").mkdir()
        for each, content in contents.items():
            (folder / each).write_bytes(content)
        answers_or_refuses(lambda: load_recipe(str(folder / "isotropy.yaml")))


@given(st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_any_override_is_taken_or_refused_in_words(overrides: list[str]) -> None:
    answers_or_refuses(lambda: load_recipe("demo-isotropy", overrides))


@given(KEYS, VALUES)
def test_any_value_of_a_key_is_taken_or_refused_in_words(key: str, value: object) -> None:
    override = f"{key}={yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).strip()}"
    answers_or_refuses(lambda: load_recipe("demo-isotropy", [override]))


CONTENT = {"weights": b"0123456789" * 20, "below/recipe.yaml": "name: é\n".encode()}


def sealed(folder: Path) -> Path:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    seal(folder, step=3)
    return folder


@given(name=st.sampled_from(sorted(CONTENT)), data=st.data())
def test_every_change_of_a_sealed_file_is_seen(name: str, data: st.DataObject) -> None:
    changed = data.draw(damaged(CONTENT[name]).filter(lambda content: content != CONTENT[name]))
    with new_folder() as folder:
        assert problem_with(sealed(folder)) is None
        (folder / name).write_bytes(changed)
        assert problem_with(folder) is not None


@st.composite
def manifests(draw: st.DrawFn) -> bytes:
    with new_folder() as folder:
        whole = (sealed(folder) / MANIFEST).read_bytes()
    described = st.fixed_dictionaries({"bytes": VALUES, "sha256": VALUES})
    names = st.sampled_from(["weights", "../outside", "/tmp/outside", "", "."]) | st.text(max_size=6)
    anything = st.dictionaries(names, described | VALUES, max_size=3).map(lambda files: {"files": files})
    written = (anything | VALUES).map(lambda value: json.dumps(value, default=str).encode())
    return draw(damaged(whole) | written)


@given(manifests())
def test_a_manifest_that_says_anything_else_vouches_for_nothing(content: bytes) -> None:
    """Neither a folder nor a copy in a backup is taken for whole, nor is a file written outside of the folder."""
    with new_folder() as parent:
        folder, place = sealed(parent / "folder"), FolderStore(parent / "backup")
        upload_folder(place, folder, "run")
        outside = sorted(path for path in parent.rglob("*") if path.is_file())
        for manifest in (folder / MANIFEST, parent / "backup" / "run" / MANIFEST):
            manifest.write_bytes(content)
        of_folder = problem_with(folder)
        assert of_folder is None or of_folder.strip()
        of_copy = fetch_folder(place, "run", parent / "fetched", keeps_manifest=True)
        after = {path for path in parent.rglob("*") if path.is_file()}
        new = {path for path in after if path not in outside}
        assert new == set() if of_copy is not None else all(path.is_relative_to(parent / "fetched") for path in new)
