"""Find everything in an account that has ragcun's tag or name, in all regions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import GLOBAL, Aws, AwsError
from ragcun_cli.aws.machines import ALIVE, find_machines
from ragcun_cli.aws.removal import remove_profile, remove_role
from ragcun_cli.aws.rollback import Orphan

TAGGED: dict[str, Any] = {"Filters": [{"Name": "tag-key", "Values": [names.RUN_TAG]}]}


@dataclass(frozen=True)
class Leftover:
    """One leftover. costs: whether it is billed by the hour; remove: service, operation and request that remove it."""

    kind: str
    name: str
    region: str
    run: str
    costs: bool
    remove: tuple[str, str, dict[str, Any]]


def all_regions(aws: Aws, region: str) -> list[str]:
    """List the regions that the account may use."""
    answer = aws.call("ec2", "describe_regions", {"AllRegions": False}, region=region)
    return sorted(each["RegionName"] for each in answer["Regions"])


def find_leftovers(aws: Aws, account: str, regions: list[str]) -> tuple[list[Leftover], list[str]]:
    """Return what was found, and what could not be checked, with the reason."""
    found: list[Leftover] = []
    closed = []
    parts = [(region, partial(_in_region, aws, region)) for region in regions]
    parts += [("roles", partial(_roles, aws)), ("budgets", partial(_budgets, aws, account))]
    for name, look in parts:
        try:
            found += look()
        except AwsError as error:
            closed.append(f"{name}: {error.message}")
    return found, closed


def _in_region(aws: Aws, region: str) -> Iterator[Leftover]:
    for each in find_machines(aws, "*", region, ALIVE):
        yield Leftover(
            f"machine ({each.state})", each.id, region, each.run, True,
            ("ec2", "terminate_instances", {"InstanceIds": [each.id]}),
        )  # fmt: skip
    tables = (
        ("disk", "describe_volumes", "Volumes", "VolumeId", "delete_volume", True),
        (
            "launch template",
            "describe_launch_templates",
            "LaunchTemplates",
            "LaunchTemplateId",
            "delete_launch_template",
            False,
        ),
        ("security group", "describe_security_groups", "SecurityGroups", "GroupId", "delete_security_group", False),
    )
    for kind, operation, key, identity, removal, costs in tables:
        for entry in aws.call("ec2", operation, TAGGED, region=region)[key]:
            if kind == "disk" and entry.get("State") == "in-use":
                continue  # removed with its machine
            request = {identity: entry[identity]}
            yield Leftover(kind, entry[identity], region, _run_of(entry), costs, ("ec2", removal, request))
    for entry in aws.call("ec2", "describe_placement_groups", TAGGED, region=region)["PlacementGroups"]:
        request = {"GroupName": entry["GroupName"]}
        yield Leftover(
            "placement group", entry["GroupName"], region, _run_of(entry), False,
            ("ec2", "delete_placement_group", request),
        )  # fmt: skip
    groups = aws.pages(
        "logs", "describe_log_groups", {"logGroupNamePrefix": "/ragcun/"}, region=region, key="logGroups"
    )
    for entry in groups:
        name = entry["logGroupName"]
        run = name.removeprefix("/ragcun/")
        yield Leftover("log group", name, region, run, False, ("logs", "delete_log_group", {"logGroupName": name}))
    schedules = aws.pages("scheduler", "list_schedules", {"NamePrefix": names.PREFIX}, region=region, key="Schedules")
    for entry in schedules:
        run = entry["Name"].removeprefix(names.PREFIX).rsplit("-", 2)[0]
        yield Leftover(
            "schedule", entry["Name"], region, run, False, ("scheduler", "delete_schedule", {"Name": entry["Name"]})
        )


def _roles(aws: Aws) -> Iterator[Leftover]:
    below = {"PathPrefix": names.IAM_PATH}
    for entry in aws.pages("iam", "list_instance_profiles", below, region=GLOBAL, key="InstanceProfiles"):
        name = entry["InstanceProfileName"]
        request = {"InstanceProfileName": name}
        yield Leftover(
            "instance profile", name, "", name.removeprefix(names.PREFIX), False,
            ("iam", "delete_instance_profile", request),
        )  # fmt: skip
    for entry in aws.pages("iam", "list_roles", below, region=GLOBAL, key="Roles"):
        name = entry["RoleName"]
        run = name.removeprefix(names.PREFIX).removesuffix("-deadline")
        yield Leftover("role", name, "", run, False, ("iam", "delete_role", {"RoleName": name}))


def _budgets(aws: Aws, account: str) -> Iterator[Leftover]:
    request = {"AccountId": account}
    for entry in aws.pages("budgets", "describe_budgets", request, region=GLOBAL, key="Budgets"):
        name = entry["BudgetName"]
        if name.startswith(names.PREFIX):
            yield Leftover(
                "budget", name, "", name.removeprefix(names.PREFIX), False,
                ("budgets", "delete_budget", {"AccountId": account, "BudgetName": name}),
            )  # fmt: skip


def remove_leftovers(aws: Aws, found: list[Leftover]) -> list[Orphan]:
    """Remove leftovers in the order found, machines first; return what could not be removed."""
    left = []
    for each in found:
        try:
            _removal(aws, each)()
        except AwsError as error:
            left.append(
                Orphan(f"{each.kind} {each.name} {each.region}".strip(), error.message, "ragcun aws gc --delete")
            )
    return left


def _removal(aws: Aws, each: Leftover) -> Any:
    if each.kind == "role":
        return partial(remove_role, aws, each.name)
    service, operation, request = each.remove
    if each.kind == "instance profile":
        return partial(remove_profile, aws, each.run)
    return partial(aws.call, service, operation, request, region=each.region or GLOBAL)


def _run_of(entry: dict[str, Any]) -> str:
    return next((tag["Value"] for tag in entry.get("Tags", []) if tag["Key"] == names.RUN_TAG), "")
