"""Reading a recipe: every problem at once, each with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cli.errors import ExitCode, RecipeError
from ragcun_cli.recipe.loading import load_recipe

VALID = """
base_model: embedded:all-MiniLM-L6-v2
lambda_isotropy: 1
lambda_reg: 0.1
data:
  train: triples.jsonl
"""


def write(folder: Path, text: str, name: str = "arm.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems_of(path: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert caught.value.exit_code == ExitCode.RECIPE
    return caught.value.message


def test_defaults_are_filled_in_and_the_name_is_the_files(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, VALID))
    assert recipe.name == "arm"
    assert recipe.output_dir == "checkpoints/arm"
    assert (recipe.output_dim, recipe.batch_size, recipe.seed) == (512, 16, 0)


def test_every_problem_is_named_with_file_line_column_and_source_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        VALID
        + "base_learning_rat: 1e-4\nmixed_precision: fp61\nisotropy_options:\n  slice: 12\nepochs: 1\nepochs: 2\n",
    )
    message = problems_of(path)
    assert f"{path}:7:1: base_learning_rat: unknown key; did you mean 'base_learning_rate'?" in message
    assert "    7 | base_learning_rat: 1e-4\n      | ^" in message
    assert f"{path}:8:1: mixed_precision: input should be 'auto', 'no', 'fp16' or 'bf16' (got 'fp61')" in message
    assert f"{path}:10:3: isotropy_options.slice: unknown key; did you mean 'slices'?" in message
    assert "   10 |   slice: 12\n      |   ^" in message
    assert f"{path}:12:1: epochs: given twice (first on line 11)" in message


def test_missing_keys_are_named(tmp_path: Path) -> None:
    message = problems_of(write(tmp_path, "lambda_reg: 0\ndata:\n  dev: x\n"))
    assert "base_model: this key is missing" in message
    assert "lambda_isotropy: this key is missing" in message
    assert ":2:1: data.train: this key is missing" in message


def test_numbers_are_read_as_yaml_1_2_does(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, VALID + "base_learning_rate: 1e-4\nprojection_learning_rate: .5\nmixed_precision: no\n")
    )
    assert recipe.base_learning_rate == 1e-4
    assert recipe.projection_learning_rate == 0.5
    assert recipe.mixed_precision == "no"  # PyYAML alone makes this False


@pytest.mark.parametrize("value", ['"3"', "true", "2.5", "nan", "0", "[1]"])
def test_a_count_must_be_a_whole_number(tmp_path: Path, value: str) -> None:
    assert "epochs: " in problems_of(write(tmp_path, VALID + f"epochs: {value}\n"))


@pytest.mark.parametrize("value", [".inf", "-1", ".nan"])
def test_a_weight_must_be_finite_and_not_negative(tmp_path: Path, value: str) -> None:
    assert "lambda_reg" in problems_of(write(tmp_path, VALID), f"lambda_reg={value}")


def test_extends_merges_key_by_key_and_the_child_wins(tmp_path: Path) -> None:
    write(tmp_path, VALID + "isotropy_options:\n  slices: 8\n  points: 9\nname: the-parent\n", "parent.yaml")
    child = write(tmp_path, "extends: parent.yaml\nisotropy_options:\n  slices: 16\nlambda_reg: 0\n", "child.yaml")
    recipe = load_recipe(child)
    assert (recipe.isotropy_options.slices, recipe.isotropy_options.points) == (16, 9)
    assert recipe.lambda_reg == 0
    assert recipe.name == "child"  # a parent's name is its own
    assert recipe.output_dir == "checkpoints/child"


def test_a_problem_of_a_parent_names_the_parents_file(tmp_path: Path) -> None:
    parent = write(tmp_path, VALID + "epochs: many\n", "parent.yaml")
    message = problems_of(write(tmp_path, "extends: parent.yaml\nsed: 1\n", "child.yaml"))
    assert f"{parent}:7:1: epochs:" in message
    assert "child.yaml:2:1: sed: unknown key; did you mean 'seed'?" in message


def test_extends_in_a_circle_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "extends: b.yaml\n", "a.yaml")
    write(tmp_path, "extends: a.yaml\n", "b.yaml")
    assert "extend each other in a loop" in problems_of(str(tmp_path / "a.yaml"))


def test_a_missing_parent_hides_no_other_problem(tmp_path: Path) -> None:
    message = problems_of(write(tmp_path, "extends: nowhere.yaml\nlambda_isotropi: 1\n"))
    assert "no such file" in message
    assert "did you mean 'lambda_isotropy'?" in message
    assert "this key is missing" not in message


def test_extends_must_name_one_file_that_is_there(tmp_path: Path) -> None:
    assert "no such file" in problems_of(write(tmp_path, "extends: nowhere.yaml\n"))
    assert "must be one file name" in problems_of(write(tmp_path, "extends: [a.yaml, b.yaml]\n"))


def test_set_goes_through_the_same_validation(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)
    recipe = load_recipe(path, ["base_learning_rate=1e-3", "isotropy_options.slices=7", "data.dev=null"])
    assert recipe.base_learning_rate == 1e-3
    assert recipe.isotropy_options.slices == 7
    message = problems_of(
        path, "epochs=x", "isotropy_options.slics=3", "dat.train=x", "nonsense", "seed=[1", "data={dev: a, dev: b}"
    )
    assert "--set epochs=x: epochs: input should be a valid integer (got 'x')" in message
    assert "isotropy_options.slics: unknown key; did you mean 'slices'?" in message
    assert "--set dat.train=x: dat: unknown key; did you mean 'data'?" in message
    assert "--set nonsense: expected key=value" in message
    assert "--set seed=[1: the value is not valid YAML" in message
    assert "--set data={dev: a, dev: b}: dev: given twice" in message


def test_a_leading_zero_is_not_octal(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)
    assert load_recipe(path, ["batch_size=010", "epochs=08"]).batch_size == 10
    assert load_recipe(write(tmp_path, VALID + "batch_size: 020\n")).batch_size == 20


def test_only_a_file_can_extend(tmp_path: Path) -> None:
    assert "only a recipe file can extend another" in problems_of(write(tmp_path, VALID), "extends=other.yaml")


def test_set_replaces_what_the_file_got_wrong(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, VALID + "epochs: many\n"), ["epochs=4"]).epochs == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("- 1\n- 2\n", "a recipe must consist of `key: value` lines"),
        ("a: [1, 2\n", "starting on line 1"),
        ("seed: &x 1\nepochs: *x\n", "aliases (*name) are not allowed"),
        ("? [a, b]\n: 1\n", "a key must be a plain word"),
        ("seed: !!python/object/apply:os.system ['true']\n", "seed"),
        ("a: 1\n--- \nb: 2\n", "not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
        ("seed: !!timestamp abc\n", "cannot read this value"),
        ("seed: !!bool foo\n", "cannot read this value"),
        ("a: " + "[" * 5000, "not valid YAML"),
        ("a: " + "[" * 100_000, "not valid YAML"),
        ("seed: " + "9" * 5000, "seed"),
        ("name: ../evil\n", "name"),
    ],
)
def test_what_is_not_a_recipe_is_said_plainly(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in problems_of(write(tmp_path, text))


def test_a_file_that_is_not_text_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8 text" in problems_of(str(path))


def test_a_missing_recipe_is_said_with_the_nearest_name(tmp_path: Path) -> None:
    assert "did you mean 'recipes/isotropy.yaml'?" in problems_of("recipes/isotrpy.yaml")
    assert "folder" in problems_of(str(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ["isotropy=covariance", "batch_size=3"],
            "--set batch_size=3: batch_size: isotropy: covariance needs at least 4",
        ),
        (["isotropy=sigreg-exact", "output_dim=8"], "--set output_dim=8: output_dim: isotropy: sigreg-exact needs at"),
        (["isotropy=vicreg", "isotropy_options.debias=true"], "isotropy: vicreg has no such option"),
        (["isotropy=gor", "isotropy_options.reference_batch=16"], "isotropy: gor has no such option"),
        (["early_stopping=2", "data.dev=null"], "early_stopping: needs a dev set"),
        (["seeds=[1, 1]"], "seeds: contains the same value twice"),
        (["seeds=[]"], "seeds: list should have at least 1 item"),
        (["trackers=[mlflow]"], "trackers.0: input should be 'tensorboard' or 'wandb'"),
        (["batch_size=1"], "batch_size: input should be greater than or equal to 2"),
        (["isotropy=sigregg"], "isotropy: input should be 'none', 'sigreg'"),
    ],
)
def test_values_that_do_not_go_together_are_named(overrides: list[str], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("isotropy", overrides)
    assert problem in caught.value.message


def test_one_key_turns_an_arm_into_another() -> None:
    assert load_recipe("isotropy", ["isotropy=none"]).lambda_isotropy == 1
    assert load_recipe("isotropy", ["seeds=[0, 1, 2]", "trackers=[tensorboard, wandb]"]).seeds == [0, 1, 2]


def test_all_values_that_do_not_go_together_are_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            "isotropy",
            ["isotropy=covariance", "batch_size=3", "isotropy_options.debias=true", "seeds=[1, 1]"],
        )
    for key in ("batch_size: ", "isotropy_options.debias: ", "seeds: "):
        assert key in caught.value.message
    assert "3 problems" in caught.value.hint


def test_a_seed_beside_seeds_would_change_nothing() -> None:
    with pytest.raises(RecipeError, match=r"--set seed=9: seed: the recipe sets seeds: \[3, 4\]"):
        load_recipe("isotropy", ["seeds=[3, 4]", "seed=9"])
    assert load_recipe("isotropy", ["seed=9"]).seed == 9
