"""`ragcun preflight`: what would stop an experiment here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import typer

from ragcun_cli.errors import EnvironmentUnfit


def preflight(
    recipes: list[str] = typer.Option(
        [], "--recipe", "-r", help="A recipe that is to be trained here; may be repeated. The three arms by default."
    ),
    gpus: int = typer.Option(0, "--gpus", min=0, help="How many GPUs there must be; fewer are a failure."),
    constraints: Path = typer.Option(
        Path("constraints.txt"), "--constraints", help="The list of tested versions to compare with, if it is here."
    ),
    json_output: bool = typer.Option(False, "--json", help="Print the checks as JSON."),
) -> None:
    """Check packages, GPUs, disk, recipes and base models before an experiment. Exit code 4 if something would stop it.

    Example: ragcun preflight --recipe isotropy --gpus 1
    """
    from ragcun_cli.console import Column, plain, print_json, print_table
    from ragcun_cli.preflight import FAILED, run_checks

    checks = list(run_checks(recipes or ["baseline", "isotropy", "frozen"], constraints, gpus))
    failed = [check for check in checks if check.status == FAILED]
    if json_output:
        print_json([dataclasses.asdict(check) for check in checks])
        raise typer.Exit(EnvironmentUnfit.exit_code if failed else 0)
    columns = [Column("check", wraps=True), Column("status"), Column("seen", wraps=True), Column("cure", wraps=True)]
    print_table(columns, [[plain(check.name), check.status, plain(check.seen), plain(check.cure)] for check in checks])
    if failed:
        raise EnvironmentUnfit(
            "preflight: " + "; ".join(f"{check.name}: {check.seen}" for check in failed),
            "\n".join(check.cure for check in failed if check.cure),
        )
