"""The run's log group in CloudWatch Logs, in the bucket's region."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws
from ragcun_cli.aws.plan import LaunchPlan
from ragcun_cli.aws.resources.kind import Found, Kind, Making, Where

DAYS_OF_LOG = 90


def build_log_group(plan: LaunchPlan) -> dict[str, Any]:
    """Build the logs:CreateLogGroup request."""
    return {"logGroupName": names.log_group_name(plan.run), "tags": {names.RUN_TAG: plan.run}}


def build_log_retention(plan: LaunchPlan) -> dict[str, Any]:
    """Build the logs:PutRetentionPolicy request."""
    return {"logGroupName": names.log_group_name(plan.run), "retentionInDays": DAYS_OF_LOG}


def _create(making: Making) -> Sequence[str]:
    aws, plan = making.aws, making.plan
    existing = ("ResourceAlreadyExistsException",)
    aws.ask("logs", "create_log_group", build_log_group(plan), region=plan.home, absent=existing)
    aws.call("logs", "put_retention_policy", build_log_retention(plan), region=plan.home)
    return [names.log_group_name(plan.run)]


def _find(aws: Aws, region: str, run: str | None) -> Iterator[Found]:
    if run is not None:
        yield Found("log group", names.log_group_name(run), region, run)
        return
    below = {"logGroupNamePrefix": names.log_group_name("")}
    for entry in aws.pages("logs", "describe_log_groups", below, region=region, key="logGroups"):
        name = entry["logGroupName"]
        yield Found("log group", name, region, name.removeprefix(names.log_group_name("")))


def _remove(aws: Aws, found: Found) -> None:
    absent = ("ResourceNotFoundException",)
    aws.ask("logs", "delete_log_group", {"logGroupName": found.id}, region=found.region, absent=absent)


LOG_GROUP = Kind("log group", Where.HOME, names.log_group_name, _find, _remove, _create)
