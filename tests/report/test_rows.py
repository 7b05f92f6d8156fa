"""Seeds fold into a row, and only what belongs together does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.report.collect import ModelResults
from ragcun_cli.report.rows import choose_rows, find_baseline, fold, mean_and_deviation
from ragcun_cli.results.model_entry import ModelEntry


def model(name: str, seed: int | None = None, isotropy: float = 0.0, **entry: Any) -> ModelResults:
    arm = None
    if seed is not None:
        arm = {"seed": seed, "recipe": f"of {isotropy}", "isotropy": "sigreg", "lambda_isotropy": isotropy,
               "freeze_base": False}  # fmt: skip
    content = {"name": name, "kind": "trained" if arm else "untouched", "identity": name, "arm": arm,
               "transform": "none", "similarity": "euclidean", "max_length": 8, "output_dim": 9,
               "precision": "float32", "tokenizer_sha256": "2" * 64, "fit_sha256": None, **entry}  # fmt: skip
    return ModelResults(name, Path(name), ModelEntry.of(content), {}, {})


def test_seeds_fold() -> None:
    rows = fold([model("raw"), model("a-seed2", 2), model("a-seed0", 0), model("a-seed1", 1), model("b", 0, 1.0)])
    assert [(row.name, row.seeds) for row in rows] == [("raw", ()), ("a", (0, 1, 2)), ("b", (0,))]
    assert [member.name for member in rows[1].members] == ["a-seed0", "a-seed1", "a-seed2"]
    assert rows[0].label == "raw (untouched)"


def test_what_follows_the_seed_stays() -> None:
    rows = fold([model("a-seed0", 0), model("a-seed0+cosine", 0), model("a-seed0-final_model", 0)])
    assert [row.name for row in rows] == ["a", "a+cosine", "a-final_model"]


def test_an_encoder_called_like_a_seed_is_none() -> None:
    assert [row.name for row in fold([model("e5-seed1"), model("e5-seed2")])] == ["e5-seed1", "e5-seed2"]


def test_recipes_that_differ_are_no_seeds_of_one_arm() -> None:
    with pytest.raises(DataError, match="a-seed0 and a-seed1 are named as seeds of a, but their recipes differ"):
        fold([model("a-seed0", 0), model("a-seed1", 1, isotropy=1.0)])


def test_seeds_scored_differently() -> None:
    with pytest.raises(DataError, match="were scored differently: max_length is 8 and 16"):
        fold([model("a-seed0", 0), model("a-seed1", 1, max_length=16)])


def test_one_seed_twice() -> None:
    with pytest.raises(DataError, match="both have seed 0"):
        fold([model("a-seed0", 0), model("a-seed1", 0)])


def test_the_same_weights_twice() -> None:
    twin = model("a-seed1", 1)
    with pytest.raises(DataError, match="both have the very same weights"):
        fold([model("a-seed0", 0), replace(twin, entry=replace(twin.entry, identity="a-seed0"))])


def test_rows_are_chosen_in_the_order_named() -> None:
    rows = fold([model("raw"), model("a", 0), model("b", 0)])
    assert [row.name for row in choose_rows(rows, ["b", "raw", "b"])] == ["b", "raw"]
    with pytest.raises(UsageError, match="--rows ray: there is no such row; did you mean 'raw'"):
        choose_rows(rows, ["ray"])


def test_the_baseline_is_the_only_arm_without_the_term() -> None:
    rows = fold([model("raw"), model("a", 0), model("b", 0, isotropy=1.0)])
    found = find_baseline(rows, None)
    assert found is not None
    assert found.name == "a"
    two = fold([model("a", 0), model("c", 0)])
    assert find_baseline(two, None) is None
    assert find_baseline(rows, "raw") is rows[0]
    with pytest.raises(UsageError, match="--baseline aa: there is no such row"):
        find_baseline(rows, "aa")


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_and_deviation([5.0]) == (5.0, None)
