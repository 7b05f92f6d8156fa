"""Print estimates for `preflight` and `train --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from ragcun_cli.console import Column, duration, plain, print_table
from ragcun_cli.quantities import shown_bytes

if TYPE_CHECKING:
    from ragcun_cli.aws.estimates import InstanceEstimate
    from ragcun_cli.recipe.estimates import Estimate
    from ragcun_cli.recipe.schema import Recipe

DOLLARS = typer.Option(
    None,
    "--dollars-per-hour",
    min=0,
    help="Cost of this machine per hour, for the estimate.",
)


def estimate_json(estimate: Estimate, dollars_per_hour: float | None) -> dict[str, Any]:
    """Return the estimate of one training run on this machine: seconds, bytes, tokens, dollars."""
    return estimate.as_json(_dollars(estimate, dollars_per_hour))


def known_json(table: dict[str, dict[str, InstanceEstimate]], recipe: str) -> dict[str, Any]:
    """Return the calculated estimates of a recipe by instance type."""
    return {instance: of[recipe].estimate.as_json(of[recipe].dollars) for instance, of in table.items() if recipe in of}


def print_estimates(estimates: dict[str, Estimate], dollars_per_hour: float | None) -> None:
    """Print the measured estimate of one training run of each recipe on this machine."""
    columns = [
        Column("recipe"), Column("time", numeric=True), Column("memory", numeric=True), Column("disk", numeric=True),
        Column("tokens", numeric=True),
    ]  # fmt: skip
    if dollars_per_hour is not None:
        columns.append(Column("cost", numeric=True))
    rows = []
    for name, estimate in estimates.items():
        row = [
            plain(name),
            "?" if estimate.seconds is None else duration(estimate.seconds),
            shown_bytes(estimate.memory),
            shown_bytes(estimate.disk),
            _millions(estimate.tokens),
        ]
        if dollars_per_hour is not None:
            dollars = _dollars(estimate, dollars_per_hour)
            row.append("?" if dollars is None else f"${dollars:,.2f}")
        rows.append(row)
    if len(estimates) > 1:
        rows.append(_together(list(estimates.values()), dollars_per_hour))
    basis = dict.fromkeys(phrase for each in estimates.values() for phrase in each.basis)
    print_table(columns, rows, title="One training run on this machine", caption="; ".join(basis))


def _together(estimates: Sequence[Estimate], dollars_per_hour: float | None) -> list[str]:
    """Return the row for all runs in sequence; its memory cell is empty, because only one runs at a time."""
    seconds = [each.seconds for each in estimates if each.seconds is not None]
    known = len(seconds) == len(estimates)
    row = [
        "all of these, one after another",
        duration(sum(seconds)) if known else "?",
        "",
        shown_bytes(sum(each.disk for each in estimates)),
        _millions(sum(each.tokens for each in estimates)),
    ]
    if dollars_per_hour is not None:
        row.append(f"${sum(seconds) / 3600 * dollars_per_hour:,.2f}" if known else "?")
    return row


def _dollars(estimate: Estimate, dollars_per_hour: float | None) -> float | None:
    seconds = estimate.seconds
    return None if seconds is None or dollars_per_hour is None else seconds / 3600 * dollars_per_hour


def print_known(recipes: Sequence[Recipe], table: dict[str, dict[str, InstanceEstimate]]) -> None:
    """Print the calculated time and cost of one training run of each recipe on the table's instance types."""
    from ragcun_cli.aws.prices import TABLE_SOURCE

    if not table:
        return
    columns = [Column("instance"), *(Column(plain(recipe.name), numeric=True) for recipe in recipes)]
    rows = [[instance, *(_on(of.get(recipe.name)) for recipe in recipes)] for instance, of in table.items()]
    print_table(
        columns,
        rows,
        title="One training run on AWS (calculated, not measured)",
        caption=f"Time with all GPUs, on-demand cost in dollars ({TABLE_SOURCE}). Calculated from data sheets, never "
        "measured: it may be wrong by a factor of two.",
    )


def _on(machine: InstanceEstimate | None) -> str:
    if machine is None or machine.estimate.seconds is None:
        return "?"
    cost = "" if machine.dollars is None else f" ${machine.dollars:,.2f}"
    return f"{duration(machine.estimate.seconds)}{cost}"


def _millions(tokens: float) -> str:
    return f"{tokens / 1e6:,.3g} M" if tokens < 1e9 else f"{tokens / 1e9:,.3g} G"
