"""`ragcun aws plan` and `launch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ragcun_cli.commands.aws.opening import confirm, open_account, the_run
from ragcun_cli.commands.aws.options import (
    ACCEPT_RECORD,
    ALLOW_CHANGES,
    BUCKET,
    CODE,
    DATASETS,
    DISK,
    EMAIL,
    IDLE,
    IMAGE,
    INSTANCE,
    JSON,
    MAX_COST,
    MAX_HOURS,
    NODES,
    ON_DEMAND,
    OVERRIDES,
    PRECISION,
    PROFILE,
    RECIPES,
    REGION,
    RUN,
    SECURITY_GROUP,
    SEEDS,
    SPEED,
    SUBNETS,
    WAIT,
    YES,
)
from ragcun_cli.commands.aws.request import (
    LaunchOptions,
    changes_of,
    duration_in_hours,
    named_run,
    plan_job,
    plan_offline,
)
from ragcun_cli.commands.aws.showing import show_attempt, show_comparison, show_plan, show_run
from ragcun_cli.commands.choices import Precision
from ragcun_cli.console import note
from ragcun_cli.errors import EnvironmentUnfit, UsageError

if TYPE_CHECKING:
    from ragcun_cli.aws.calls import Aws
    from ragcun_cli.aws.code import CodeArchive
    from ragcun_cli.aws.plan import LaunchPlan


def plan(
    instance: str | None = INSTANCE,
    recipes: list[str] = RECIPES,
    overrides: list[str] = OVERRIDES,
    seeds: str | None = SEEDS,
    datasets: str | None = DATASETS,
    precision: Precision = PRECISION,
    regions: list[str] = REGION,
    on_demand: bool = ON_DEMAND,
    nodes: int = NODES,
    run: str | None = RUN,
    max_hours: float | None = MAX_HOURS,
    max_cost: float | None = MAX_COST,
    idle_minutes: int | None = IDLE,
    disk: int | None = DISK,
    bucket: str | None = BUCKET,
    image: str | None = IMAGE,
    email: str | None = EMAIL,
    triples_per_second: float | None = SPEED,
    subnets: list[str] = SUBNETS,
    security_group: str | None = SECURITY_GROUP,
    profile: str | None = PROFILE,
    compare: bool = typer.Option(
        False, "--compare", help="Compare the known machines for this job in one table, the cheapest first."
    ),
    offline: bool = typer.Option(False, "--offline", help="Ask AWS nothing; use ragcun's own table of prices."),
    json_output: bool = JSON,
) -> None:
    """Show what a launch would do, need and cost, and what would stop it. Makes nothing. Exit code 4 if stopped.

    Example: ragcun aws plan --instance g5.xlarge --recipe isotropy --region us-east-1,us-west-2
    """
    options = LaunchOptions.of(locals())
    if offline and profile is not None:
        raise UsageError("--offline asks AWS nothing: leave out --profile")
    if compare:
        return _compare(options, profile, offline, json_output)
    if instance is None:
        raise UsageError("--instance is missing", "Give one, such as g5.xlarge, or --compare for all known ones.")
    found = plan_offline(options) if offline else plan_job(open_account(profile), options)
    return _show_plan(found, json_output)


def _compare(options: LaunchOptions, profile: str | None, offline: bool, json_output: bool) -> None:
    from ragcun_cli.aws.compare import compare
    from ragcun_cli.aws.instances import KNOWN

    chosen = [options.instance] if options.instance else list(KNOWN)
    aws = None if offline else open_account(profile)
    plans: list[LaunchPlan] = []
    for name in chosen:
        asked = options.with_instance(name)
        try:
            plans.append(plan_offline(asked) if aws is None else plan_job(aws, asked))
        except UsageError as error:  # a type that the regions do not have
            if options.instance or not error.message.startswith("--instance"):
                raise
            note(f"{name}: {error.message}")
    found = compare(plans)
    show_comparison(found, plans, json_output)
    if not any(each.is_possible for each in found):
        raise typer.Exit(EnvironmentUnfit.exit_code)


def _show_plan(found: LaunchPlan, json_output: bool) -> None:
    from ragcun_cli.aws.plan import require_launchable

    show_plan(found, json_output)
    if json_output and found.obstacles():
        raise typer.Exit(EnvironmentUnfit.exit_code)
    require_launchable(found)


def launch(
    instance: str | None = INSTANCE,
    recipes: list[str] = RECIPES,
    overrides: list[str] = OVERRIDES,
    seeds: str | None = SEEDS,
    datasets: str | None = DATASETS,
    precision: Precision = PRECISION,
    regions: list[str] = REGION,
    on_demand: bool = ON_DEMAND,
    nodes: int = NODES,
    run: str | None = RUN,
    max_hours: float | None = MAX_HOURS,
    max_cost: float | None = MAX_COST,
    idle_minutes: int | None = IDLE,
    disk: int | None = DISK,
    bucket: str | None = BUCKET,
    image: str | None = IMAGE,
    email: str | None = EMAIL,
    triples_per_second: float | None = SPEED,
    subnets: list[str] = SUBNETS,
    security_group: str | None = SECURITY_GROUP,
    profile: str | None = PROFILE,
    code: Path | None = CODE,
    allow_changes: bool = ALLOW_CHANGES,
    resume: bool = typer.Option(
        False, "--resume", help="Start another machine for an interrupted run, named by --run or by its recipes."
    ),
    accept_record: bool = ACCEPT_RECORD,
    wait: str | None = WAIT,
    dry_run: bool = typer.Option(False, "--dry-run", help="Show the plan and stop, like `ragcun aws plan`."),
    yes: bool = YES,
    json_output: bool = JSON,
) -> None:
    """Start a run: show the plan, ask once, make what is needed and start the machine.

    The machine installs, checks, downloads, trains, evaluates and reports, uploading as it goes, then ends itself.
    Running the command again only shows the run. If a launch fails, what it made is removed.
    Example: ragcun aws launch --instance p4d.24xlarge --max-hours 12 --max-cost 300
    """
    from ragcun_cli.aws.code import archive_checkout, default_checkout

    options, hours = LaunchOptions.of(locals()), duration_in_hours("--wait", wait)
    if accept_record and not resume:
        raise UsageError("--accept-record needs --resume here; `ragcun aws watch` has it too")
    aws = open_account(profile)
    if resume:
        archive = None if code is None else archive_checkout(code, allow_changes)
        return _resume(aws, options, archive, accept_record, hours, yes, dry_run, json_output)
    if instance is None:
        raise UsageError("--instance is missing", "Try --instance g5.xlarge; `ragcun aws plan --compare` compares.")
    found = plan_job(aws, options)
    if dry_run:
        return _show_plan(found, json_output)
    if code is not None and not code.is_dir():
        raise UsageError(f"--code {code}: no such folder", "Name a git clone of ragcun.")
    archive = archive_checkout(code or default_checkout(), allow_changes)
    if _attached(aws, found, archive, json_output):
        return None
    return start_run(aws, found, archive, hours, yes, json_output)


def start_run(aws: Aws, found: LaunchPlan, archive: CodeArchive, hours: float, yes: bool, json_output: bool) -> None:
    """Show the plan, ask once, and start the run."""
    from ragcun_cli.aws.launch import launch_run
    from ragcun_cli.aws.plan import require_launchable
    from ragcun_cli.aws.waiting import until_there_is_capacity

    show_plan(found, False, on_stderr=json_output)
    require_launchable(found)
    if archive.changed:
        note(f"The code differs from its commit: {len(archive.changed)} changed files are included.")
    confirm(f"Launch {found.run}?", yes)
    attempt = until_there_is_capacity(lambda: launch_run(aws, found, archive, note), hours, note)
    show_attempt(found.run, attempt, json_output)


# What a launch that attaches to an existing run cannot change.
FIXED = ("instance", "on_demand", "nodes", "max_hours", "max_cost", "idle_minutes", "disk", "image", "email")


def _attached(aws: Aws, found: LaunchPlan, archive: CodeArchive, json_output: bool) -> bool:
    """Show the run if it already exists, and return whether it does.

    Raises:
        UsageError: if a different run has this name, or the run needs --resume.
    """
    from ragcun_cli.aws.launch import describe_launch
    from ragcun_cli.aws.runs import differences, find_run

    there = find_run(aws, found.account, found.run, found.home, found.wishes.bucket)
    if there is None:
        return False
    if different := differences(there.launch, describe_launch(found, archive)):
        raise UsageError(
            f"--run {found.run}: this name belongs to a run with different {', '.join(different)}",
            f"Choose another name (--run NAME), or remove that run: ragcun aws terminate {found.run}",
        )
    if there.state() not in ("starting", "running", "finished"):
        raise UsageError(
            f"run {found.run} already exists: it is {there.state()}",
            f"Resume it: ragcun aws launch --run {found.run} --resume; or remove it: ragcun aws terminate {found.run}",
        )
    note(f"Run {found.run} already exists: nothing was started.")
    recorded, wished = there.launch.wishes, found.wishes
    kept = [
        _as_flag(name, getattr(recorded, name)) for name in FIXED if getattr(recorded, name) != getattr(wished, name)
    ]
    if kept:
        note(f"It keeps the options that it was launched with: {', '.join(kept)}.")
    show_run(there, json_output)
    return True


def _as_flag(name: str, value: object) -> str:
    """Show an option as it would be given."""
    flag = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"no {flag}"
    return flag if value is True else f"{flag} {value:g}" if isinstance(value, float) else f"{flag} {value}"


def _resume(
    aws: Aws,
    options: LaunchOptions,
    archive: CodeArchive | None,
    accept_record: bool,
    hours: float,
    yes: bool,
    dry_run: bool,
    json_output: bool,
) -> None:
    from ragcun_cli.aws import kept
    from ragcun_cli.aws.plan import require_launchable
    from ragcun_cli.aws.waiting import until_there_is_capacity
    from ragcun_cli.aws.watch import plan_relaunch, relaunch

    run, first = named_run(options, aws.session.region_name)
    found = the_run(aws, run, first, options.bucket)
    changes = changes_of(options, found.record.region)
    # Where this computer has no copy of what was launched, the plan below shows it, and the answer confirms it.
    copy = kept.kept_record(found.record.account, found.record.bucket, run)
    if copy is not None and not accept_record:
        kept.require_as_kept(found.launch, found.record.bucket)
    for difference in kept.changes(copy, found.launch) if copy is not None else ():
        note(f"The record differs from this computer's copy: {difference}")
    planned, _ = plan_relaunch(aws, found, changes)
    if dry_run:
        return _show_plan(planned, json_output)
    show_plan(planned, False, on_stderr=json_output)
    require_launchable(planned)
    confirm(f"Resume {run}?", yes)
    kept.keep(found.launch, found.record.bucket)

    def again() -> Any:
        return relaunch(aws, the_run(aws, run, first, options.bucket), note, changes, archive)

    attempt = until_there_is_capacity(again, hours, note)
    return show_attempt(run, attempt, json_output)
