"""What one training would take on each machine of ragcun's own table: calculated, no account needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragcun_cli.aws.estimates import estimate_on_machine
from ragcun_cli.aws.instances import KNOWN
from ragcun_cli.aws.job import count_triples
from ragcun_cli.aws.prices import table_price
from ragcun_cli.recipe.encoder_shapes import shape_of
from ragcun_cli.recipe.estimates import Estimate
from ragcun_cli.recipe.schema import Recipe


@dataclass(frozen=True)
class OnMachine:
    """dollars: of the training, at the table's price on demand; None where one is not known."""

    instance: str
    described: str
    estimate: Estimate
    dollars: float | None


def estimates_on_known_machines(recipe: Recipe, triples: int | None = None) -> list[OnMachine]:
    """With all GPUs of each machine. triples: where they are counted already; none, if nobody can count them."""
    count = count_triples(recipe) if triples is None else triples
    if count is None:
        return []
    found = []
    for instance in KNOWN.values():
        machine = instance.machine(nodes=1)
        estimate = estimate_on_machine(recipe, shape_of(recipe.base_model), count, machine, machine.devices)
        price = table_price(instance.name, on_demand=True).dollars
        dollars = None if price is None or estimate.seconds is None else price * estimate.seconds / 3600
        found.append(OnMachine(instance.name, instance.described(), estimate, dollars))
    return found


def by_instance(recipes: Sequence[Recipe], triples: dict[str, int]) -> dict[str, dict[str, OnMachine]]:
    """For each instance type the estimate of each recipe, by its name."""
    table: dict[str, dict[str, OnMachine]] = {}
    for recipe in recipes:
        for each in estimates_on_known_machines(recipe, triples.get(recipe.name)):
            table.setdefault(each.instance, {})[recipe.name] = each
    return table
