"""`ragcun preflight`: find what would stop an experiment here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ragcun_cli.commands import completion
from ragcun_cli.commands.estimates import DOLLARS
from ragcun_cli.console import Column, note, plain, print_json, print_table
from ragcun_cli.errors import EnvironmentUnfit, UsageError

if TYPE_CHECKING:
    from ragcun_cli.preflight.checks import Check
    from ragcun_cli.preflight.running import Report


def preflight(
    recipes: list[str] = typer.Option(
        [],
        "--recipe",
        "-r",
        help="A recipe to be trained here; may be repeated. The three arms by default.",
        autocompletion=completion.recipes,
    ),
    overrides: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="Change a value of every recipe, as for `train`; may be repeated."
    ),
    no_training: bool = typer.Option(
        False, "--no-training", help="Skip the short training of each recipe, its checks and its estimates."
    ),
    gpus: int = typer.Option(0, "--gpus", min=0, help="How many GPUs are required; fewer is a failure. 0: any number."),
    constraints: Path | None = typer.Option(
        None, "--constraints", help="The list of tested versions to compare with; ragcun's own by default."
    ),
    aws: bool = typer.Option(
        False, "--aws", help="Also check an AWS account: credentials, permissions, quota, bucket. Reads only."
    ),
    instance: str = typer.Option(
        "p4d.24xlarge",
        "--instance",
        "-i",
        help="With --aws: the machine type whose quota is checked.",
        autocompletion=completion.instances,
    ),
    region: str | None = typer.Option(
        None, "--region", help="With --aws: region to check; your session's, else us-east-1, by default."
    ),
    profile: str | None = typer.Option(
        None, "--profile", help="With --aws: profile of your AWS configuration; AWS_PROFILE by default."
    ),
    dollars_per_hour: float | None = DOLLARS,
    json_output: bool = typer.Option(False, "--json", help="Print checks and estimates as JSON."),
) -> None:
    """Find in five minutes what would stop an experiment after nine hours. Exit code 4 if something would.

    Checks packages, GPUs, memory, disks, network, base models and data. Then each recipe trains for a few real steps
    on its real model and a sample of its data, is killed, resumes, and is scored on a hundred passages. These
    measurements give the estimates of time, memory, disk, tokens and cost. Ctrl-C is safe. It leaves only what a
    training needs anyway: base models it fetched, and data it prepared in the cache.

    Example: ragcun preflight --recipe isotropy --gpus 1
    """
    from ragcun_cli.preflight.packages import tested_versions
    from ragcun_cli.preflight.running import PreflightOptions, run_checks
    from ragcun_cli.recipe.shipped import ARMS

    if constraints is not None and not constraints.is_file():
        raise UsageError(f"--constraints {constraints}: there is no such file", "ragcun's own list is constraints.txt.")
    tested = constraints or tested_versions()
    wishes = PreflightOptions(tuple(recipes or ARMS), tuple(overrides), tested, gpus, not no_training)
    report = run_checks(wishes)
    if aws:
        report = dataclasses.replace(report, checks=[*report.checks, *_account(instance, region, profile)])
    if json_output:
        print_json(_as_json(report, dollars_per_hour))
        raise typer.Exit(EnvironmentUnfit.exit_code if report.failures else 0)
    _print(report, dollars_per_hour)
    if report.failures:
        raise EnvironmentUnfit(
            "preflight: " + "; ".join(f"{check.name}: {check.seen}" for check in report.failures),
            "\n".join(dict.fromkeys(check.cure for check in report.failures if check.cure)),
        )


def _account(instance: str, region: str | None, profile: str | None) -> list[Check]:
    from ragcun_cli.preflight.account import check_account

    note("preflight: the AWS account ...")
    return list(check_account(instance, region, profile))


def _as_json(report: Report, dollars_per_hour: float | None) -> dict[str, Any]:
    from ragcun_cli.aws.estimates import by_instance
    from ragcun_cli.commands.estimates import estimate_json, known_json

    known = by_instance(report.recipes, report.triples)
    return {
        "checks": [dataclasses.asdict(check) for check in report.checks],
        "estimates": {
            recipe.name: {
                "here": estimate_json(report.estimates[recipe.name], dollars_per_hour)
                if recipe.name in report.estimates
                else None,
                "calculated": known_json(known, recipe.name),
            }
            for recipe in report.recipes
        },
    }


def _print(report: Report, dollars_per_hour: float | None) -> None:
    from ragcun_cli.aws.estimates import by_instance
    from ragcun_cli.commands.estimates import print_estimates, print_known

    marks = {"ok": "[green]ok[/]", "remark": "[yellow]remark[/]", "failed": "[red]failed[/]"}
    rows = []
    for check in report.checks:
        cure = f"\n[dim]-> {plain(check.cure)}[/]" if check.cure and check.status != "ok" else ""
        rows.append([marks[check.status], plain(check.name), plain(check.seen) + cure])
    print_table([Column(""), Column("check", wraps=True), Column("seen", wraps=True)], rows)
    if report.estimates:
        print_estimates(report.estimates, dollars_per_hour)
        print_known(report.recipes, by_instance(report.recipes, report.triples))
