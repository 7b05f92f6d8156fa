"""`ragcun aws plan` and `ragcun aws launch`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ragcun_cli.commands.aws.opening import confirm, open_account, the_run
from ragcun_cli.commands.aws.options import (
    ALLOW_CHANGES,
    BUCKET,
    CODE,
    DATASETS,
    DEFAULT_IDLE_MINUTES,
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
    SEEDS,
    SPEED,
    YES,
)
from ragcun_cli.commands.aws.showing import show_run
from ragcun_cli.commands.choices import Precision
from ragcun_cli.console import note, print_entries, print_json
from ragcun_cli.errors import EnvironmentUnfit, UsageError

if TYPE_CHECKING:
    from ragcun_cli.aws.calls import Aws
    from ragcun_cli.aws.code import CodeArchive
    from ragcun_cli.aws.plan import LaunchPlan


def plan(
    instance: str = INSTANCE,
    recipes: list[str] = RECIPES,
    overrides: list[str] = OVERRIDES,
    seeds: str | None = SEEDS,
    datasets: str | None = DATASETS,
    precision: Precision = PRECISION,
    regions: list[str] = REGION,
    on_demand: bool = ON_DEMAND,
    nodes: int = NODES,
    run: str | None = RUN,
    max_hours: float = MAX_HOURS,
    max_cost: float | None = MAX_COST,
    idle_minutes: int = IDLE,
    disk: int | None = DISK,
    bucket: str | None = BUCKET,
    image: str | None = IMAGE,
    email: str | None = EMAIL,
    triples_per_second: float | None = SPEED,
    profile: str | None = PROFILE,
    offline: bool = typer.Option(False, "--offline", help="Ask AWS nothing; use ragcun's own table of prices."),
    json_output: bool = JSON,
) -> None:
    """Show what a launch would do, need and cost, and what would stop it. Makes nothing. Exit code 4 if stopped.

    Example: ragcun aws plan --instance g5.xlarge --recipe isotropy --region us-east-1,us-west-2
    """
    from ragcun_cli.aws.plan import require_launchable

    asked = _LaunchOptions(**_shared_options(locals()))
    found = _offline_plan(asked) if offline else _plan(open_account(profile), asked)
    _show_plan(found, json_output)
    if json_output and found.obstacles():
        raise typer.Exit(EnvironmentUnfit.exit_code)
    require_launchable(found)


def launch(
    instance: str | None = typer.Option(
        None, "--instance", "-i", help="Type of machine, such as p4d.24xlarge. With --resume: may differ from before."
    ),
    recipes: list[str] = RECIPES,
    overrides: list[str] = OVERRIDES,
    seeds: str | None = SEEDS,
    datasets: str | None = DATASETS,
    precision: Precision = PRECISION,
    regions: list[str] = REGION,
    on_demand: bool = ON_DEMAND,
    nodes: int = NODES,
    run: str | None = RUN,
    max_hours: float | None = typer.Option(
        None, "--max-hours", min=0.5, max=720, help="Limit in hours of the whole run, over all machines; 24 by default."
    ),
    max_cost: float | None = MAX_COST,
    idle_minutes: int = IDLE,
    disk: int | None = DISK,
    bucket: str | None = BUCKET,
    image: str | None = IMAGE,
    email: str | None = EMAIL,
    triples_per_second: float | None = SPEED,
    profile: str | None = PROFILE,
    code: Path | None = CODE,
    allow_changes: bool = ALLOW_CHANGES,
    resume: bool = typer.Option(
        False, "--resume", help="Start another machine for an interrupted run, named by --run or by its recipes."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show the plan and stop, like `ragcun aws plan`."),
    yes: bool = YES,
    json_output: bool = JSON,
) -> None:
    """Start a run: show the plan, ask once, make what is needed and start the machine.

    The machine installs, checks, downloads, trains, evaluates and reports, uploading as it goes, then ends itself. The
    same command again attaches to the run instead of starting another. If a launch fails, what it made is removed.
    Example: ragcun aws launch --instance p4d.24xlarge --max-hours 12 --max-cost 300
    """
    from ragcun_cli.aws.code import archive_checkout, default_checkout
    from ragcun_cli.aws.launch import launch_run
    from ragcun_cli.aws.plan import require_launchable

    given = _shared_options(locals())
    aws = open_account(profile)
    if resume:
        archive = None if code is None else archive_checkout(code, allow_changes)
        return _resume(aws, given, archive, yes, dry_run, json_output)
    if instance is None:
        raise UsageError("--instance is missing", "Try --instance g5.xlarge; `ragcun aws plan --offline` compares.")
    asked = _LaunchOptions(**{**given, "max_hours": 24.0 if max_hours is None else max_hours})
    found = _plan(aws, asked)
    if dry_run:
        return _show_dry_run(found, json_output)
    archive = archive_checkout(code or default_checkout(), allow_changes)
    if _attached(aws, found, archive, json_output):
        return None
    _show_plan(found, False, on_stderr=json_output)
    require_launchable(found)
    if archive.changed:
        note(f"The code differs from its commit: {len(archive.changed)} changed files are included.")
    confirm(f"Launch {found.run}?", yes)
    attempt = launch_run(aws, found, archive, note)
    _show_attempt(found.run, attempt, json_output)
    return None


@dataclasses.dataclass(frozen=True)
class _LaunchOptions:
    """The options that `plan` and `launch` share."""

    instance: str
    recipes: list[str]
    overrides: list[str]
    seeds: str | None
    datasets: str | None
    precision: Precision
    regions: list[str]
    on_demand: bool
    nodes: int
    run: str | None
    max_hours: float
    max_cost: float | None
    idle_minutes: int
    disk: int | None
    bucket: str | None
    image: str | None
    email: str | None
    triples_per_second: float | None
    profile: str | None


def _shared_options(values: dict[str, Any]) -> dict[str, Any]:
    """Return, of a command's arguments, those that `plan` and `launch` share."""
    return {field.name: values[field.name] for field in dataclasses.fields(_LaunchOptions)}


def _plan(aws: Aws, asked: _LaunchOptions) -> LaunchPlan:
    from ragcun_cli.aws import names
    from ragcun_cli.aws.instances import require_not_retired
    from ragcun_cli.aws.plan import make_plan

    require_not_retired(asked.instance)
    wishes, loaded = _wishes(asked, aws.session.region_name)
    for region in wishes.regions:
        aws.require_region(region)
    bucket = wishes.bucket or names.bucket_name(aws.account()[0], wishes.regions[0])
    return make_plan(aws, wishes, _job(asked, loaded, bucket, wishes.run))


def _offline_plan(asked: _LaunchOptions) -> LaunchPlan:
    from ragcun_cli.aws.plan import make_offline_plan

    wishes, loaded = _wishes(asked, None)
    return make_offline_plan(wishes, _job(asked, loaded, wishes.bucket or "BUCKET", wishes.run))


def _wishes(asked: _LaunchOptions, region: str | None) -> tuple[Any, list[Any]]:
    from ragcun_cli.aws.names import default_run_name, require_run_name
    from ragcun_cli.aws.plan import LaunchRequest, parsed_regions
    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.recipe.shipped import ARMS

    loaded = [load_recipe(name, asked.overrides) for name in asked.recipes or ARMS]
    if asked.bucket is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", asked.bucket):
        raise UsageError(f"--bucket {asked.bucket}: not a valid S3 bucket name", "Use small letters, digits, hyphens.")
    if asked.email is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", asked.email):
        raise UsageError(f"--email {asked.email}: not an email address")
    shared = {field.name for field in dataclasses.fields(LaunchRequest)} - {"run", "regions"}
    return LaunchRequest(
        run=require_run_name(asked.run or default_run_name([recipe.name for recipe in loaded])),
        regions=parsed_regions(asked.regions, region),
        **{name: getattr(asked, name) for name in shared},
    ), loaded


def _job(asked: _LaunchOptions, loaded: list[Any], bucket: str, run: str) -> Any:
    from ragcun_cli.aws.job import make_job
    from ragcun_cli.aws.names import prefix_of
    from ragcun_cli.aws.record import CHECKPOINTS
    from ragcun_cli.commands.train import parse_seeds

    seeds = parse_seeds(asked.seeds) if asked.seeds is not None else []
    backup = f"s3://{bucket}/{prefix_of(run)}{CHECKPOINTS}"
    job = make_job(loaded, seeds, asked.datasets, asked.precision, backup)
    if asked.nodes > 1 and job.runs > len(job.recipes):
        raise UsageError(
            f"--nodes {asked.nodes}: machines share one training, but several seeds are several trainings",
            "Launch a run for each seed (--set seed=N --run NAME), or use one machine, whose GPUs train side by side.",
        )
    return job


def _show_dry_run(found: LaunchPlan, json_output: bool) -> None:
    from ragcun_cli.aws.plan import require_launchable

    _show_plan(found, json_output)
    if json_output and found.obstacles():
        raise typer.Exit(EnvironmentUnfit.exit_code)
    require_launchable(found)


# What a launch that attaches to an existing run cannot change.
FIXED = ("instance", "on_demand", "nodes", "max_hours", "max_cost", "idle_minutes", "disk", "image", "email")


def _attached(aws: Aws, found: LaunchPlan, archive: Any, json_output: bool) -> bool:
    """Show the run if it already exists, and return whether it does.

    Raises:
        UsageError: if a different run has this name, or the run needs --resume.
    """
    from ragcun_cli.aws.runs import differences, find_run
    from ragcun_cli.aws.storage import describe_launch

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
    recorded, wished = there.launch["wishes"], dataclasses.asdict(found.wishes)
    kept = [f"--{name.replace('_', '-')} {recorded[name]}" for name in FIXED if recorded[name] != wished[name]]
    if kept:
        note(f"It keeps the options that it was launched with: {', '.join(kept)}.")
    show_run(there, json_output)
    return True


# What a resumed run keeps.
KEPT = {"overrides": "--set", "seeds": "--seeds", "datasets": "--datasets"}


def _resume(
    aws: Aws, given: dict[str, Any], archive: CodeArchive | None, yes: bool, dry_run: bool, json_output: bool
) -> None:
    from ragcun_cli.aws.names import default_run_name
    from ragcun_cli.aws.plan import parsed_regions, require_launchable
    from ragcun_cli.aws.watch import plan_relaunch, relaunch
    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.recipe.shipped import ARMS

    refused = [flag for name, flag in KEPT.items() if given[name]]
    refused += ["--recipe"] if given["recipes"] and given["run"] else []
    refused += ["--precision"] if given["precision"] != "float32" else []
    refused += ["--nodes"] if given["nodes"] != 1 else []
    if refused:
        raise UsageError(
            f"--resume: the run keeps its own {', '.join(refused)}",
            "You can give --instance, --region, --on-demand, --max-hours, --max-cost, --idle-minutes, --disk, --image, "
            "--email and --code. For other work, launch another run: --run NAME.",
        )
    named = [load_recipe(name).name for name in given["recipes"] or ARMS]
    run = given["run"] or default_run_name(named)
    first = parsed_regions(given["regions"], aws.session.region_name)[0]
    found = the_run(aws, run, first, given["bucket"])
    wanted = ("instance", "max_hours", "max_cost", "disk", "image", "email", "triples_per_second")
    changes: dict[str, Any] = {name: given[name] for name in wanted if given[name] is not None}
    if given["on_demand"]:
        changes["on_demand"] = True
    if given["idle_minutes"] != DEFAULT_IDLE_MINUTES:
        changes["idle_minutes"] = given["idle_minutes"]
    if given["regions"]:
        # The bucket's region stays the first; machines are sought in the regions given now.
        changes["regions"] = list(dict.fromkeys([found.record.region, *parsed_regions(given["regions"], None)]))
    planned, _ = plan_relaunch(aws, found, changes)
    if dry_run:
        return _show_dry_run(planned, json_output)
    _show_plan(planned, False, on_stderr=json_output)
    require_launchable(planned)
    confirm(f"Resume {run}?", yes)
    attempt = relaunch(aws, found, note, changes, archive)
    return _show_attempt(run, attempt, json_output)


def _show_attempt(run: str, attempt: Any, json_output: bool) -> None:
    if json_output:
        return print_json({"run": run, **attempt.as_json()})
    place = attempt.zone or attempt.region
    note(f"Started {', '.join(attempt.instances)} in {place}; will be ended by {attempt.end} at the latest.")
    return note(
        f"Next:  ragcun aws status {run}  |  ragcun aws logs {run} --follow  |  ragcun aws watch {run} (starts another "
        "machine if this one is reclaimed)"
    )


INDENT = 13  # of the text beside the names in a plan's lines


def _show_plan(found: LaunchPlan, json_output: bool, on_stderr: bool = False) -> None:
    from ragcun_cli.aws.show import plan_lines

    if json_output:
        return print_json(found.as_json())
    if on_stderr:
        return note("\n".join(plan_lines(found)))
    return print_entries(plan_lines(found), INDENT)
