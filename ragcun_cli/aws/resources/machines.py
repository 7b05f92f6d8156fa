"""The run's machines on EC2: the fleet that starts them, finding them by their tag, and ending them."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.plan import LaunchPlan, RegionPlan
from ragcun_cli.aws.resources.kind import Found, Kind, Making, Where
from ragcun_cli.aws.resources.tags import run_of, tags_for
from ragcun_cli.aws.state_reason import NO_REASON, StateReason
from ragcun_cli.aws.transient import is_transient, pauses
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.spot import POLL_SECONDS

ALIVE = ("pending", "running", "stopping", "stopped")
ENDING = (*ALIVE, "shutting-down")
SECONDS_TO_END = 600.0  # GPU machines take minutes
SECONDS_TO_APPEAR = 60.0  # for a machine to appear whose request got no response
SECONDS_BETWEEN_TRIES = 5.0
# No machine of this type is available there now; another zone or region may have one.
NO_CAPACITY = {
    "InsufficientInstanceCapacity", "InsufficientCapacity", "UnfulfillableCapacity", "InsufficientHostCapacity",
    "SpotMaxPriceTooLow", "InsufficientFreeAddressesInSubnet", "Unsupported", "UnsupportedOperation",
    "InvalidFleetConfiguration",
}  # fmt: skip
# The account's quota there is used up.
NO_QUOTA = {"VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "InstanceLimitExceeded", "MaxSpotFleetRequestCount"}


TRANSITION = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


class NoMachine(EnvironmentUnfit):
    """No machine was available in one region, or in any of them."""

    title = "aws"


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


def build_fleet(plan: LaunchPlan, region: RegionPlan, template: str, attempt: int, tries: int) -> dict[str, Any]:
    """Build the ec2:CreateFleet request, type instant: all machines at once or none, across a region's zones.

    AWS recommends it over RunInstances, which tries one zone. tries: how often AWS has refused it before.
    """
    overrides = [{"InstanceType": plan.instance.name, "SubnetId": zone.subnet} for zone in region.zones]
    config = {"LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "1"}, "Overrides": overrides}
    nodes = plan.wishes.nodes
    # With MinTargetCapacity, a fleet that cannot get all nodes gets none. Only several nodes must share a zone: for
    # one, the option could fix a zone before its capacity is known.
    together: dict[str, Any] = {"SingleInstanceType": True, "MinTargetCapacity": nodes}
    if nodes > 1 or not plan.wishes.on_demand:
        together["SingleAvailabilityZone"] = True
    request: dict[str, Any] = {
        "Type": "instant",
        "ClientToken": names.client_token(plan.run, attempt, template, tries),
        "LaunchTemplateConfigs": [config],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": nodes,
            "DefaultTargetCapacityType": "on-demand" if plan.wishes.on_demand else "spot",
        },
        "TagSpecifications": [*tags_for("fleet", plan.run), *tags_for("instance", plan.run)],
    }
    if plan.wishes.on_demand:
        return request | {"OnDemandOptions": {"AllocationStrategy": "lowest-price", **together}}
    return request | {
        "SpotOptions": {
            "AllocationStrategy": "price-capacity-optimized",
            "InstanceInterruptionBehavior": "terminate",
            **together,
        }
    }


def build_machines_query(run: str, states: Sequence[str]) -> dict[str, Any]:
    """Build the ec2:DescribeInstances request for machines with the run's tag."""
    return {
        "Filters": [
            {"Name": f"tag:{names.RUN_TAG}", "Values": [run]},
            {"Name": "instance-state-name", "Values": list(states)},
        ]
    }


def _create(making: Making) -> Sequence[str]:
    """Start the machines.

    Raises:
        NoMachine: if none is available in the region.
        AwsError: if AWS refuses something else.
    """
    plan, region = making.plan, making.place
    errors: dict[str, str] = {}
    # Each refusal needs a new token: the same one would only bring the same answer again.
    for tries, pause in enumerate((*pauses(), 0.0)):
        ids, errors = _request(making, tries)
        making.instances = ids
        if len(ids) == plan.wishes.nodes:
            return ids
        if ids or not any(is_transient("ec2", "create_fleet", code, said) for code, said in errors.items()):
            break
        time.sleep(pause)
    said = "; ".join(f"{code}: {message}" for code, message in errors.items()) or "AWS gave no reason"
    if errors and not set(errors) <= NO_CAPACITY | NO_QUOTA:
        raise AwsError(f"{region.name}: {said}", "", next(iter(errors)))
    raise NoMachine(_no_machine(region, said, bool(set(errors) & NO_QUOTA)))


def _request(making: Making, tries: int) -> tuple[list[str], dict[str, str]]:
    """Return the ids of the machines that started, and the refusals by their code."""
    region = making.place
    request = build_fleet(making.plan, region, making.template, making.attempt.number, tries)
    making.answer_lost = True
    try:
        answer = making.aws.send("ec2", "create_fleet", request, region=region.name)
    except AwsError as error:
        making.answer_lost = error.is_unsettled
        if error.code in NO_CAPACITY | NO_QUOTA or is_transient("ec2", "create_fleet", error.code, error.message):
            return [], {error.code: error.message}
        raise
    making.answer_lost = False
    ids = [each for part in answer.get("Instances", []) for each in part["InstanceIds"]]
    return ids, {each["ErrorCode"]: each.get("ErrorMessage", "") for each in answer.get("Errors", [])}


def _no_machine(region: RegionPlan, said: str, quota: bool) -> str:
    if quota:
        page = region.quota.increase_page(region.name)
        return f"{region.name}: the quota {region.quota.name!r} ({region.quota.code}) is used up: {said}. Raise: {page}"
    return f"{region.name}: no capacity: {said}"


def _undo(making: Making) -> None:
    """End the machines: those that were named, whether or not EC2 lists them yet, and, if the answer was lost, those
    that appear late."""
    aws, run, region = making.aws, making.plan.run, making.place.name
    deadline = time.monotonic() + SECONDS_TO_APPEAR
    while not end_machines(aws, run, region, unlisted=making.instances, patience=SECONDS_TO_APPEAR):
        if not making.answer_lost or time.monotonic() > deadline:
            return
        time.sleep(SECONDS_BETWEEN_TRIES)


def find_machines(aws: Aws, run: str, region: str, states: Sequence[str] = ALIVE) -> list[MachineState]:
    """Return a run's machines in a region; `*` as run means every run."""
    query = build_machines_query(run, states)
    reservations = aws.pages("ec2", "describe_instances", query, region=region, key="Reservations")
    return [_as_state(each, region) for reservation in reservations for each in reservation["Instances"]]


def reason_of(aws: Aws, region: str, instances: Sequence[str]) -> StateReason:
    """Return why EC2 says that these machines ended: the first reason after which no other may start, else the first.

    EC2 forgets a machine about an hour after its end; then there is none.
    """
    if not region or not instances:
        return NO_REASON
    query = {"Filters": [{"Name": "instance-id", "Values": list(instances)}]}
    reservations = aws.pages("ec2", "describe_instances", query, region=region, key="Reservations")
    found = [
        StateReason(str(reason.get("Code", "")), str(reason.get("Message", "")), ended_at(each))
        for reservation in reservations
        for each in reservation["Instances"]
        if (reason := each.get("StateReason")) and each["State"]["Name"] not in ALIVE
    ]
    return next((each for each in found if each.is_final), found[0] if found else NO_REASON)


def ended_at(entry: dict[str, Any]) -> datetime.datetime | None:
    """Return when EC2 says that a machine's last transition was: it ends its reason with a time, but not always."""
    match = TRANSITION.search(entry.get("StateTransitionReason", ""))
    if match is None:
        return None
    return datetime.datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.timezone.utc)


def end_machines(
    aws: Aws,
    run: str,
    region: str,
    only: Collection[str] | None = None,
    also: Collection[str] = (),
    unlisted: Collection[str] = (),
    patience: float = 0.0,
) -> list[str]:
    """Terminate the machines in a region that have the run's tag, wait until they are gone, and return their ids.

    only: if given, restrict this to the run's machines with these ids. also: ids that a record names; of these, those
    that have lost their tag but have the run's instance profile. unlisted: ids that EC2 itself gave this computer, and
    may not list yet; patience: seconds within which it may come to know them.

    Raises:
        AwsError: if AWS refuses, or the machines still exist after ten minutes.
    """
    ended: list[str] = []
    began = time.monotonic()
    while True:
        states = {each.id: each.state for each in _chosen(aws, run, region, ENDING, only)}
        named = _named(aws, region, {*also, *unlisted})
        states |= {each["InstanceId"]: each["State"]["Name"] for each in named if _is_of(each, run)}
        known = {each["InstanceId"] for each in named}
        unknown = [each for each in unlisted if each not in known and each not in ended]
        ended += [each for each in unknown if _is_ended_by_id(aws, region, each)]
        if alive := [each for each, state in states.items() if state in ALIVE and each not in ended]:
            aws.call("ec2", "terminate_instances", {"InstanceIds": alive}, region=region)
            ended += alive
            continue
        left = [each for each, state in states.items() if state in ENDING]
        waited = time.monotonic() - began
        if not left and (set(unknown) <= set(ended) or waited >= patience):
            return ended
        if waited > max(SECONDS_TO_END, patience):
            raise AwsError(f"{region}: still shutting down after {SECONDS_TO_END / 60:.0f} minutes: {', '.join(left)}")
        time.sleep(POLL_SECONDS)


def _named(aws: Aws, region: str, instances: Collection[str]) -> list[dict[str, Any]]:
    """Return what EC2 lists of these machines."""
    if not instances:
        return []
    query = {"Filters": [{"Name": "instance-id", "Values": sorted(instances)}]}
    reservations = aws.pages("ec2", "describe_instances", query, region=region, key="Reservations")
    return [each for reservation in reservations for each in reservation["Instances"]]


def _is_of(entry: dict[str, Any], run: str) -> bool:
    """Return whether a machine is the run's: by its tag, or by its instance profile, which only the run's have.

    A record in the bucket may name any machine of the account.
    """
    profile = str(entry.get("IamInstanceProfile", {}).get("Arn", ""))
    return run_of(entry) == run or profile.endswith(f"instance-profile{names.IAM_PATH}{names.resource_name(run)}")


def _is_ended_by_id(aws: Aws, region: str, instance: str) -> bool:
    """Terminate a machine that EC2 does not list; return whether it knew it. Alone: one unknown id spoils a request."""
    try:
        aws.send("ec2", "terminate_instances", {"InstanceIds": [instance]}, region=region)
    except AwsError as error:
        if error.code != "InvalidInstanceID.NotFound":
            raise
        return False
    return True


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
        run=tags.get(names.RUN_TAG, ""),
        is_spot=entry.get("InstanceLifecycle") == "spot",
        started=entry["LaunchTime"].isoformat(),
    )


def _find(aws: Aws, region: str, run: str | None) -> Iterator[Found]:
    for each in find_machines(aws, run or "*", region):
        yield Found("machine", each.id, region, each.run, each.state)


def _remove(aws: Aws, found: Found) -> None:
    end_machines(aws, found.run, found.region)  # all nodes at once: each takes minutes to end


MACHINES = Kind("machine", Where.REGION, names.resource_name, _find, _remove, _create, _undo, costs=True)
