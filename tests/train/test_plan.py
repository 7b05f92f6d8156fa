"""What a training will do, and what it refuses to begin."""

from __future__ import annotations

import pytest

from ragcun_cli.data.triples.table import TripleTable
from ragcun_cli.errors import DataError, EnvironmentUnfit
from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.train.plan import make_plan
from ragcun_cli.train.precision import Hardware, choose_precision
from tests.triple_tables import table_of

CPU = Hardware("cpu", "CPU", None)
T4 = Hardware("cuda", "Tesla T4", (7, 5))
A100 = Hardware("cuda", "A100", (8, 0))


def triples(count: int, with_negative: int) -> TripleTable:
    return table_of([(f"q{n}", f"p{n}", [f"n{n}"] if n < with_negative else []) for n in range(count)])


def recipe(*overrides: str) -> Recipe:
    return load_recipe("isotropy", overrides)


def test_counts() -> None:
    plan = make_plan(recipe("gradient_accumulation_steps=3"), triples(500, 500), CPU)
    assert (plan.steps_per_epoch, plan.total_steps, plan.warmup_steps) == (10, 30, 30)
    assert plan.negatives_per_query == 31  # 15 positives of others and 16 hard negatives
    assert make_plan(recipe(), triples(500, 0), CPU).negatives_per_query == 15
    assert make_plan(recipe("max_steps=7"), triples(500, 0), CPU).total_steps == 7
    assert make_plan(recipe("contrastive=triplet"), triples(32, 32), CPU).negatives_per_query == 1


def test_a_query_whose_positive_recurs_has_fewer_negatives() -> None:
    table = table_of([(f"q{n}", f"p{min(n, 14)}", []) for n in range(16)])
    plan = make_plan(recipe(), table, CPU)
    assert (plan.negatives_per_query, plan.fewest_negatives) == (15 - 2 / 16, 14)
    assert plan.equal_passages_per_query == 2 / 16
    assert make_plan(recipe(), triples(500, 250), CPU).equal_passages_per_query == 0


def test_queries_without_any_negative_are_refused() -> None:
    with pytest.raises(DataError, match="no query has a negative"):
        make_plan(recipe(), table_of([(f"q{n}", "p", []) for n in range(32)]), CPU)


def test_too_few_triples_for_a_step() -> None:
    with pytest.raises(DataError, match="15 triples do not fill one step of 16"):
        make_plan(recipe(), triples(15, 15), CPU)
    with pytest.raises(DataError, match="do not fill one step of 64"):
        make_plan(recipe("gradient_accumulation_steps=4"), triples(63, 0), CPU)


def test_triplet_needs_negatives() -> None:
    with pytest.raises(DataError, match="2 of 32 have none"):
        make_plan(recipe("contrastive=triplet"), triples(32, 30), CPU)


@pytest.mark.parametrize(
    ("asked", "hardware", "expected"),
    [
        ("auto", CPU, "no"),
        ("auto", T4, "fp16"),
        ("auto", A100, "bf16"),
        ("auto", Hardware("cuda", "K80", (3, 7)), "no"),
        ("auto", Hardware("mps", "Apple GPU", None), "no"),
        ("no", A100, "no"),
        ("fp16", A100, "fp16"),
        ("bf16", CPU, "bf16"),
    ],
)
def test_precision(asked: str, hardware: Hardware, expected: str) -> None:
    assert choose_precision(asked, hardware) == expected


@pytest.mark.parametrize(
    ("asked", "hardware"), [("fp16", CPU), ("bf16", T4), ("bf16", Hardware("mps", "Apple GPU", None))]
)
def test_an_impossible_precision_is_refused(asked: str, hardware: Hardware) -> None:
    with pytest.raises(EnvironmentUnfit, match="mixed_precision"):
        choose_precision(asked, hardware)
