"""Find a run's machines on EC2 by their tag, and terminate them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ragcun_cli.aws.build.machine import build_machines_query
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.names import RUN_TAG
from ragcun_cli.spot import POLL_SECONDS

ALIVE = ("pending", "running", "stopping", "stopped")
ENDING = (*ALIVE, "shutting-down")
SECONDS_TO_END = 600.0  # GPU machines take minutes


@dataclass(frozen=True)
class MachineState:
    """The state of one machine."""

    id: str
    region: str
    zone: str
    type: str
    state: str
    run: str
    is_spot: bool
    started: str


def find_machines(aws: Aws, run: str, region: str, states: Sequence[str] = ALIVE) -> list[MachineState]:
    """Return a run's machines in a region; `*` as run means every run."""
    query = build_machines_query(run, states)
    reservations = aws.pages("ec2", "describe_instances", query, region=region, key="Reservations")
    return [_as_state(each, region) for reservation in reservations for each in reservation["Instances"]]


def end_machines(aws: Aws, run: str, region: str, only: Collection[str] | None = None) -> list[str]:
    """Terminate the machines in a region that have the run's tag, wait until they are gone, and return their ids.

    only: if given, restrict this to the run's machines with these ids.

    Raises:
        AwsError: if AWS refuses, or the machines still exist after ten minutes.
    """
    found = [machine.id for machine in _chosen(aws, run, region, ALIVE, only)]
    if found:
        aws.call("ec2", "terminate_instances", {"InstanceIds": found}, region=region)
    deadline = time.monotonic() + SECONDS_TO_END
    while left := _chosen(aws, run, region, ENDING, only):
        if time.monotonic() > deadline:
            ids = ", ".join(machine.id for machine in left)
            raise AwsError(f"{region}: still shutting down after {SECONDS_TO_END / 60:.0f} minutes: {ids}")
        time.sleep(POLL_SECONDS)
    return found


def _chosen(aws: Aws, run: str, region: str, states: Sequence[str], only: Collection[str] | None) -> list[MachineState]:
    return [each for each in find_machines(aws, run, region, states) if only is None or each.id in only]


def _as_state(entry: dict[str, Any], region: str) -> MachineState:
    tags = {tag["Key"]: tag["Value"] for tag in entry.get("Tags", [])}
    return MachineState(
        id=entry["InstanceId"],
        region=region,
        zone=entry["Placement"]["AvailabilityZone"],
        type=entry["InstanceType"],
        state=entry["State"]["Name"],
        run=tags.get(RUN_TAG, ""),
        is_spot=entry.get("InstanceLifecycle") == "spot",
        started=entry["LaunchTime"].isoformat(),
    )
