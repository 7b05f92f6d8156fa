"""The schedules outside the machines that end each of them when --max-hours has run out."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws
from ragcun_cli.aws.launch_record import as_time
from ragcun_cli.aws.plan import LaunchPlan
from ragcun_cli.aws.prices import MINUTES_AFTER
from ragcun_cli.aws.resources.kind import Found, Kind, Making, Where

NO_SCHEDULE = ("ResourceNotFoundException",)
ENDING = re.compile(r"-\d+-\d+$")  # after the run's name: the attempt's number and the node's


def build_schedule(plan: LaunchPlan, attempt: int, node: int, instance: str, end: datetime.datetime) -> dict[str, Any]:
    """Build the scheduler:CreateSchedule request: it ends one machine, then removes itself. end: in UTC.

    Each machine has its own, because EC2 refuses a request that includes a machine it no longer knows. It comes after
    the machine's own timer, which shuts it down cleanly.
    """
    late = end + datetime.timedelta(minutes=MINUTES_AFTER)
    return {
        "Name": names.schedule_name(plan.run, attempt, node),
        "Description": f"ends a machine of ragcun run {plan.run}",
        "ScheduleExpression": f"at({late:%Y-%m-%dT%H:%M:%S})",
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {
            "Arn": f"arn:{plan.partition}:scheduler:::aws-sdk:ec2:terminateInstances",
            "RoleArn": names.role_arn(plan.partition, plan.account, names.deadline_role_name(plan.run)),
            "Input": json.dumps({"InstanceIds": [instance]}),
            "RetryPolicy": {"MaximumRetryAttempts": 10, "MaximumEventAgeInSeconds": 3600},
        },
    }


def _create(making: Making) -> Sequence[str]:
    plan, number = making.plan, making.attempt.number
    for node, instance in enumerate(making.instances):
        request = build_schedule(plan, number, node, instance, as_time(making.attempt.end))
        making.aws.call("scheduler", "create_schedule", request, region=making.place.name)
    return [names.schedule_name(plan.run, number, node) for node in range(len(making.instances))]


def _find(aws: Aws, region: str, run: str | None) -> Iterator[Found]:
    prefix = names.PREFIX if run is None else f"{names.PREFIX}{run}-"
    for entry in aws.pages("scheduler", "list_schedules", {"NamePrefix": prefix}, region=region, key="Schedules"):
        of_run = ENDING.sub("", entry["Name"]).removeprefix(names.PREFIX)
        # `ragcun-isotropy-2-1-0` belongs to run `isotropy-2`, and `ragcun-isotropy-2-0` to run `isotropy`.
        if run is None or of_run == run:
            yield Found("schedule", entry["Name"], region, of_run)


def _remove(aws: Aws, found: Found) -> None:
    aws.ask("scheduler", "delete_schedule", {"Name": found.id}, region=found.region, absent=NO_SCHEDULE)


SCHEDULES = Kind(
    "schedule", Where.REGION, lambda run: f"{names.PREFIX}{run}-…", _find, _remove, _create, serves_machines=True
)
