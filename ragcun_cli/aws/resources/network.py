"""The run's security group, which lets nothing in, and the placement group that keeps several nodes close together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.plan import LaunchPlan, RegionPlan
from ragcun_cli.aws.resources.kind import Found, Kind, Making, Where
from ragcun_cli.aws.resources.tags import of_run, run_of, tagged, tags_for
from ragcun_cli.aws.transient import pauses
from ragcun_cli.errors import UsageError

NO_GROUP = ("InvalidGroup.NotFound", "InvalidGroupId.Malformed", "InvalidGroupId.NotFound")
NO_PLACEMENT = ("InvalidPlacementGroup.Unknown",)
IN_USE = ("DependencyViolation", "InvalidPlacementGroup.InUse")
SECONDS_FOR_A_GROUP = 120.0  # AWS releases a group some time after its last machine is gone
SECONDS_BETWEEN_TRIES = 5.0


def build_security_group(plan: LaunchPlan, region: RegionPlan) -> dict[str, Any]:
    """Build the ec2:CreateSecurityGroup request: no inbound rule, and AWS's default outbound rule."""
    return {
        "GroupName": names.resource_name(plan.run),
        "Description": f"ragcun run {plan.run}: no inbound traffic",
        "VpcId": region.vpc,
        "TagSpecifications": tags_for("security-group", plan.run),
    }


def build_node_traffic(group: str) -> dict[str, Any]:
    """Build the ec2:AuthorizeSecurityGroupIngress request: of several nodes, each may reach only its group."""
    return {"GroupId": group, "IpPermissions": [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]}


def build_placement_group(plan: LaunchPlan) -> dict[str, Any]:
    """Build the ec2:CreatePlacementGroup request, which places nodes close to each other."""
    return {
        "GroupName": names.resource_name(plan.run),
        "Strategy": "cluster",
        "TagSpecifications": tags_for("placement-group", plan.run),
    }


def _wants_group(plan: LaunchPlan) -> bool:
    return plan.wishes.security_group is None


def _wants_placement(plan: LaunchPlan) -> bool:
    return plan.wishes.nodes > 1


def _create_group(making: Making) -> Sequence[str]:
    aws, plan, region = making.aws, making.plan, making.place
    there = aws.call("ec2", "describe_security_groups", of_run(plan.run), region=region.name)["SecurityGroups"]
    if there:
        _require_closed(there[0], region)
        making.group = str(there[0]["GroupId"])
    else:
        making.group = _new_group(making)
    if plan.wishes.nodes > 1:
        existing = ("InvalidPermission.Duplicate",)
        request = build_node_traffic(making.group)
        aws.ask("ec2", "authorize_security_group_ingress", request, region=region.name, absent=existing)
    return [making.group]


def _new_group(making: Making) -> str:
    """Create the group; if AWS says that it is there although it did not list it, wait until it does.

    That happens after an answer that was lost, and when EC2's lists lag (SkyPilot's pull request 4584).
    """
    aws, plan, region = making.aws, making.plan, making.place
    request, duplicate = build_security_group(plan, region), ("InvalidGroup.Duplicate",)
    answer = aws.ask("ec2", "create_security_group", request, region=region.name, absent=duplicate)
    if answer is not None:
        return str(answer["GroupId"])
    for pause in pauses():
        there = aws.call("ec2", "describe_security_groups", of_run(plan.run), region=region.name)["SecurityGroups"]
        if there:
            _require_closed(there[0], region)
            return str(there[0]["GroupId"])
        time.sleep(pause)
    raise UsageError(
        f"{region.name}: a security group {request['GroupName']} is there without the run's tag",
        "Remove it, or choose another --run.",
    )


def _require_closed(group: dict[str, Any], region: RegionPlan) -> None:
    """Refuse the run's group if it lets in anybody but the run's own nodes, or belongs to another VPC."""
    name = f"security group {group['GroupId']} in {region.name}"
    cure = "Remove it (`ragcun aws gc` lists it), or choose another --run."
    if group.get("VpcId", region.vpc) != region.vpc:
        raise UsageError(f"{name}: it is in {group['VpcId']}, not in {region.vpc}", cure)
    for rule in group.get("IpPermissions", []):
        if rule.get("IpRanges") or rule.get("Ipv6Ranges") or rule.get("PrefixListIds"):
            raise UsageError(f"{name}: somebody has opened it to addresses", cure)


def _create_placement(making: Making) -> Sequence[str]:
    existing = ("InvalidPlacementGroup.Duplicate",)
    request = build_placement_group(making.plan)
    making.aws.ask("ec2", "create_placement_group", request, region=making.place.name, absent=existing)
    return [names.resource_name(making.plan.run)]


def _find_groups(aws: Aws, region: str, run: str | None) -> Iterator[Found]:
    for entry in aws.call("ec2", "describe_security_groups", tagged(run), region=region)["SecurityGroups"]:
        yield Found("security group", entry["GroupId"], region, run_of(entry))


def _find_placements(aws: Aws, region: str, run: str | None) -> Iterator[Found]:
    for entry in aws.call("ec2", "describe_placement_groups", tagged(run), region=region)["PlacementGroups"]:
        yield Found("placement group", entry["GroupName"], region, run_of(entry))


def _remove_group(aws: Aws, found: Found) -> None:
    request = {"GroupId": found.id}
    _while_in_use(lambda: aws.ask("ec2", "delete_security_group", request, region=found.region, absent=NO_GROUP))


def _remove_placement(aws: Aws, found: Found) -> None:
    request = {"GroupName": found.id}
    _while_in_use(lambda: aws.ask("ec2", "delete_placement_group", request, region=found.region, absent=NO_PLACEMENT))


def _while_in_use(remove: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS_FOR_A_GROUP
    while True:
        try:
            remove()
            return
        except AwsError as error:
            if error.code not in IN_USE or time.monotonic() > deadline:
                raise
        time.sleep(SECONDS_BETWEEN_TRIES)


SECURITY_GROUP = Kind(
    "security group", Where.REGION, names.resource_name, _find_groups, _remove_group, _create_group, wanted=_wants_group
)
PLACEMENT_GROUP = Kind(
    "placement group",
    Where.REGION,
    names.resource_name,
    _find_placements,
    _remove_placement,
    _create_placement,
    wanted=_wants_placement,
)
