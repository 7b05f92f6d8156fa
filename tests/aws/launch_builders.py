"""Launches with the shipped recipes, as several tests need them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ragcun_cli.aws.code import CodeArchive, archive_checkout
from ragcun_cli.aws.job import make_job
from ragcun_cli.aws.launch import launch_run
from ragcun_cli.aws.launch_record import Attempt, LaunchRequest
from ragcun_cli.aws.names import bucket_name, prefix_of
from ragcun_cli.aws.plan import LaunchPlan
from ragcun_cli.aws.planning import make_plan
from ragcun_cli.recipe.loading import load_recipe
from tests.aws.cloud import ACCOUNT, HOME, Cloud

WISHES = LaunchRequest(run="isotropy", instance="p4d.24xlarge", regions=(HOME, "us-west-2"), max_hours=10)


def plan_for(cloud: Cloud, recipes: tuple[str, ...] = ("isotropy",), **changes: Any) -> LaunchPlan:
    wishes = replace(WISHES, **changes)
    bucket = wishes.bucket or bucket_name(ACCOUNT, wishes.regions[0])
    backup = f"s3://{bucket}/{prefix_of(wishes.run)}checkpoints"
    job = make_job([load_recipe(name) for name in recipes], [], None, "float32", backup)
    return make_plan(cloud.aws(), wishes, job)


def launch_for(cloud: Cloud, checkout: Path, **changes: Any) -> tuple[LaunchPlan, Attempt]:
    plan = plan_for(cloud, **changes)
    return plan, launch_run(cloud.aws(), plan, code_of(checkout), lambda line: None)


def code_of(checkout: Path) -> CodeArchive:
    return archive_checkout(checkout, allow_changes=False)
