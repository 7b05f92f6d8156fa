"""From the options of `plan` and `launch` to what is asked for: the request, the job, the plan."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragcun_cli.commands.aws.opening import require_bucket_name
from ragcun_cli.errors import UsageError

if TYPE_CHECKING:
    from ragcun_cli.aws.calls import Aws
    from ragcun_cli.aws.job import Job
    from ragcun_cli.aws.launch_record import LaunchRequest
    from ragcun_cli.aws.plan import LaunchPlan
    from ragcun_cli.commands.choices import Precision
    from ragcun_cli.recipe.schema import Recipe

DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|m|min)")


@dataclass(frozen=True)
class LaunchOptions:
    """The options that `plan` and `launch` share, as given: None or empty where they were not."""

    instance: str | None
    recipes: list[str]
    overrides: list[str]
    seeds: str | None
    datasets: str | None
    precision: Precision
    regions: list[str]
    on_demand: bool
    nodes: int
    run: str | None
    max_hours: float | None
    max_cost: float | None
    idle_minutes: int | None
    disk: int | None
    bucket: str | None
    image: str | None
    email: str | None
    triples_per_second: float | None
    subnets: list[str]
    security_group: str | None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> LaunchOptions:
        """Take, of a command's arguments, those in here."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})

    def with_instance(self, instance: str) -> LaunchOptions:
        """Return the same options for another machine."""
        return dataclasses.replace(self, instance=instance)


def duration_in_hours(flag: str, text: str | None) -> float:
    """Return the hours that a text such as 6h or 90m means; 0 if there is none.

    Raises:
        UsageError: if it is not a duration.
    """
    if text is None:
        return 0.0
    match = DURATION.fullmatch(text)
    if match is None or not float(match[1]):
        raise UsageError(f"{flag} {text}: not a duration", "Write it as 6h or 90m.")
    return float(match[1]) / (1 if match[2] == "h" else 60)


def plan_job(aws: Aws, options: LaunchOptions) -> LaunchPlan:
    """Plan a launch, asking AWS."""
    from ragcun_cli.aws import names
    from ragcun_cli.aws.instances import require_not_retired
    from ragcun_cli.aws.planning import make_plan

    require_not_retired(options.instance or "")
    recipes = _recipes(options)
    request = _request(options, recipes, aws.session.region_name)
    for region in request.regions:
        aws.require_region(region)
    bucket = request.bucket or names.bucket_name(aws.account()[0], request.regions[0])
    return make_plan(aws, request, _job(options, recipes, bucket, request.run))


def plan_offline(options: LaunchOptions) -> LaunchPlan:
    """Plan a launch from ragcun's own tables."""
    from ragcun_cli.aws.planning import make_offline_plan

    recipes = _recipes(options)
    request = _request(options, recipes, None)
    return make_offline_plan(request, _job(options, recipes, request.bucket or "BUCKET", request.run))


def _recipes(options: LaunchOptions) -> list[Recipe]:
    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.recipe.shipped import ARMS

    return [load_recipe(name, options.overrides) for name in options.recipes or ARMS]


def _request(options: LaunchOptions, recipes: list[Recipe], region: str | None) -> LaunchRequest:
    from ragcun_cli.aws.launch_record import LaunchRequest
    from ragcun_cli.aws.names import default_run_name, require_run_name
    from ragcun_cli.aws.planning import parsed_regions

    _require_well_formed(options)
    given = {
        field.name: value
        for field in dataclasses.fields(LaunchRequest)
        if field.name not in ("run", "regions", "subnets") and (value := getattr(options, field.name)) is not None
    }
    return LaunchRequest(
        run=require_run_name(options.run or default_run_name([recipe.name for recipe in recipes])),
        regions=parsed_regions(options.regions, region),
        subnets=tuple(options.subnets),
        **given,
    )


def _require_well_formed(options: LaunchOptions) -> None:
    """Refuse names that AWS would refuse only in the middle of a launch.

    Raises:
        UsageError: naming the option.
    """
    forms = (
        ("--image", options.image, r"ami-[0-9a-f]+", "not an image's id (ami-…)"),
        ("--email", options.email, r"[^@\s]+@[^@\s]+\.[^@\s]+", "not an email address"),
        ("--security-group", options.security_group, r"sg-[0-9a-f]+", "not a security group's id (sg-…)"),
        *(("--subnet", each, r"subnet-[0-9a-f]+", "not a subnet's id (subnet-…)") for each in options.subnets),
    )
    if options.bucket is not None:
        require_bucket_name(options.bucket)
    for flag, value, form, problem in forms:
        if value is not None and not re.fullmatch(form, value):
            raise UsageError(f"{flag} {value}: {problem}")
    if options.security_group is not None and not options.subnets:
        raise UsageError("--security-group: it belongs to a VPC: give --subnet too, with subnets of the same VPC")


def _job(options: LaunchOptions, recipes: list[Recipe], bucket: str, run: str) -> Job:
    from ragcun_cli.aws.job import make_job
    from ragcun_cli.aws.names import prefix_of
    from ragcun_cli.aws.record import CHECKPOINTS
    from ragcun_cli.commands.train import parse_seeds

    seeds = parse_seeds(options.seeds) if options.seeds is not None else []
    backup = f"s3://{bucket}/{prefix_of(run)}{CHECKPOINTS}"
    job = make_job(recipes, seeds, options.datasets, options.precision, backup)
    if options.nodes > 1 and job.runs > len(job.recipes):
        raise UsageError(
            f"--nodes {options.nodes}: machines share one training, but several seeds are several trainings",
            "Launch a run for each seed (--set seed=N --run NAME), or use one machine, whose GPUs train side by side.",
        )
    return job


# What a resumed run keeps, and what may change.
KEPT = {"overrides": "--set", "seeds": "--seeds", "datasets": "--datasets"}
CHANGEABLE = (
    "instance", "max_hours", "max_cost", "idle_minutes", "disk", "image", "email", "triples_per_second",
    "security_group",
)  # fmt: skip


def named_run(options: LaunchOptions, region: str | None) -> tuple[str, str]:
    """Return the name of the run to resume and the region to ask first.

    Raises:
        UsageError: if other options ask for other work.
    """
    from ragcun_cli.aws.names import default_run_name
    from ragcun_cli.aws.planning import parsed_regions
    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.recipe.shipped import ARMS

    refused = [flag for name, flag in KEPT.items() if getattr(options, name)]
    refused += ["--recipe"] if options.recipes and options.run else []
    refused += ["--precision"] if options.precision != "float32" else []
    refused += ["--nodes"] if options.nodes != 1 else []
    if refused:
        raise UsageError(
            f"--resume: the run keeps its own {', '.join(refused)}",
            "You can give --instance, --region, --on-demand, --max-hours, --max-cost, --idle-minutes, --disk, --image, "
            "--email, --subnet, --security-group, --triples-per-second and --code. For other work, launch another run: "
            "--run NAME.",
        )
    names = [load_recipe(name).name for name in options.recipes or ARMS]
    return options.run or default_run_name(names), parsed_regions(options.regions, region)[0]


def changes_of(options: LaunchOptions, home: str) -> dict[str, Any]:
    """Return what the options change of a resumed run's request. home: the bucket's region, which stays the first."""
    from ragcun_cli.aws.planning import parsed_regions

    _require_well_formed(options)
    changes: dict[str, Any] = {name: value for name in CHANGEABLE if (value := getattr(options, name)) is not None}
    if options.on_demand:
        changes["on_demand"] = True
    if options.subnets:
        changes["subnets"] = tuple(options.subnets)
    if options.regions:
        changes["regions"] = tuple(dict.fromkeys([home, *parsed_regions(options.regions, None)]))
    return changes
