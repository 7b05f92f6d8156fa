"""The shipped recipes are what the publication says, and differ only in what is studied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.recipe.rendering import recipe_reference, recipe_schema, render_recipe, render_recipe_with_comments
from ragcun_cli.recipe.schema import DataSettings, IsotropyOptions, Recipe
from ragcun_cli.recipe.shipped import shipped_folder, shipped_recipes
from tests.conftest import REPOSITORY

STUDIED = {"lambda_isotropy", "lambda_reg", "freeze_base"}
OWN = {"name", "description", "output_dir"}


def differences(one: Recipe, other: Recipe) -> set[str]:
    left, right = one.model_dump(), other.model_dump()
    return {key for key in left if left[key] != right[key]} - OWN


def test_the_publication_settings() -> None:
    for name, isotropy, variance, frozen in (
        ("baseline", 0, 0, False),
        ("isotropy", 1, 0.1, False),
        ("frozen", 1, 0.1, True),
    ):
        recipe = load_recipe(name)
        assert (recipe.lambda_isotropy, recipe.lambda_reg, recipe.freeze_base) == (isotropy, variance, frozen)
        assert recipe.base_model == "sentence-transformers/all-mpnet-base-v2"
        assert (recipe.output_dim, recipe.epochs, recipe.batch_size, recipe.warmup_steps) == (512, 3, 16, 1000)
        assert (recipe.base_learning_rate, recipe.projection_learning_rate) == (1e-5, 5e-4)
        assert recipe.mixed_precision == "auto"


@pytest.mark.parametrize("prefix", ["", "demo-"])
def test_arms_differ_only_in_what_is_studied(prefix: str) -> None:
    baseline, isotropy, frozen = (load_recipe(prefix + arm) for arm in ("baseline", "isotropy", "frozen"))
    assert differences(baseline, isotropy) == {"lambda_isotropy", "lambda_reg"}
    assert differences(isotropy, frozen) == {"freeze_base"}


def test_the_demo_studies_what_the_publication_studies() -> None:
    for arm in ("baseline", "isotropy", "frozen"):
        paper, demo = load_recipe(arm), load_recipe(f"demo-{arm}")
        assert not differences(paper, demo) & STUDIED


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.stem)
def test_each_is_short_and_says_only_what_is_its_own(path: Path) -> None:
    keys = {line.split(":")[0] for line in path.read_text().splitlines() if line and not line.startswith("#")}
    assert keys <= STUDIED | {"extends", "description"}


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.stem)
def test_rendering_gives_the_same_recipe_again(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(path), ["mixed_precision=no", "data.dev=null", "description='1e-3: no # yes'"])
    for number, render in enumerate((render_recipe, render_recipe_with_comments)):
        copy = tmp_path / f"{number}.yaml"
        copy.write_text(render(recipe), encoding="utf-8")
        assert load_recipe(str(copy)) == recipe


def test_the_committed_reference_is_current() -> None:
    page = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert page == recipe_reference(), "make docs"
    assert "| `batch_size` | whole number from 2 | `16` |" in page
    for model in (Recipe, DataSettings, IsotropyOptions):
        assert all(f"| `{name}` |" in page for name in model.model_fields)


def test_the_committed_schema_is_current() -> None:
    committed = (REPOSITORY / "recipes" / "schema.json").read_text(encoding="utf-8")
    assert committed == recipe_schema(), "run `make schema`"


def test_the_schema_knows_every_key_and_refuses_others() -> None:
    schema = json.loads(recipe_schema())
    assert set(schema["properties"]) == {"extends", *Recipe.model_fields}
    assert schema["additionalProperties"] is False
    assert all(part["description"] for part in schema["properties"].values() if "$ref" not in part)


def test_each_recipe_points_editors_to_the_schema() -> None:
    for path in shipped_folder().rglob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        assert (path.parent / first.split("=")[1]).resolve() == (shipped_folder() / "schema.json").resolve()
