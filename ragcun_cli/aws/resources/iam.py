"""The machines' role and instance profile, and the role of the schedules that end them; all within a boundary."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import GLOBAL, Aws
from ragcun_cli.aws.plan import LaunchPlan
from ragcun_cli.aws.record import WRITTEN_BY_MACHINE
from ragcun_cli.aws.resources.kind import Found, Kind, Making, Where
from ragcun_cli.errors import UsageError

POLICY_NAME = "run"
# EC2's own name ends in the partition's domain; the scheduler's is the same everywhere.
USUAL_DOMAIN, DOMAINS = "amazonaws.com", {"aws-cn": "amazonaws.com.cn"}
EXISTS = ("EntityAlreadyExists",)
NO_ENTITY = ("NoSuchEntity",)


def build_role(plan: LaunchPlan) -> dict[str, Any]:
    """Build the iam:CreateRole request for the machines."""
    return _role(names.resource_name(plan.run), _trust(f"ec2.{DOMAINS.get(plan.partition, USUAL_DOMAIN)}"), plan)


def build_role_policy(plan: LaunchPlan) -> dict[str, Any]:
    """Build the machines' iam:PutRolePolicy request: read the run's objects, write what the machine makes, its log,
    sessions, and an end to its own machines. AWS cannot limit the five session actions to a resource."""
    objects = f"arn:{plan.partition}:s3:::{plan.bucket}"
    run, caches = names.prefix_of(plan.run), names.cache_prefix_of(plan.run)
    group = f"arn:{plan.partition}:logs:*:{plan.account}:log-group:{names.log_group_name(plan.run)}"
    readable = [f"{prefix}*" for prefix in (run, caches, f"{names.STAGED}/")]
    writable = [*(f"{run}{each}" for each in WRITTEN_BY_MACHINE), f"{caches}*"]
    if plan.job.only_downloads:
        writable.append(f"{names.STAGED}/*")
    statements: list[dict[str, Any]] = [
        {
            "Sid": "ReadObjects",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": [f"{objects}/{each}" for each in readable],
        },
        {
            # Not launch.json, code, recipes and inputs: `watch` starts machines by them with the user's credentials.
            "Sid": "WriteWhatItMakes",
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            "Resource": [f"{objects}/{each}" for each in writable],
        },
        {
            "Sid": "List",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": objects,
            "Condition": {"StringLike": {"s3:prefix": readable}},
        },
        {
            "Sid": "Log",
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": [group, f"{group}:*"],
        },
        {
            "Sid": "Session",
            "Effect": "Allow",
            "Action": [
                "ssm:UpdateInstanceInformation",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            "Resource": "*",
        },
        _may_end_machines(plan),
    ]
    return _policy(names.resource_name(plan.run), statements)


def build_instance_profile(plan: LaunchPlan) -> dict[str, Any]:
    """Build the iam:CreateInstanceProfile request."""
    name = names.resource_name(plan.run)
    return {"InstanceProfileName": name, "Path": names.IAM_PATH, "Tags": names.tags_of(plan.run)}


def build_profile_role(plan: LaunchPlan) -> dict[str, Any]:
    """Build the iam:AddRoleToInstanceProfile request."""
    name = names.resource_name(plan.run)
    return {"InstanceProfileName": name, "RoleName": name}


def build_deadline_role(plan: LaunchPlan) -> dict[str, Any]:
    """Build the iam:CreateRole request for the schedules that end the machines."""
    trust = _trust("scheduler.amazonaws.com", {"StringEquals": {"aws:SourceAccount": plan.account}})
    return _role(names.deadline_role_name(plan.run), trust, plan)


def build_deadline_policy(plan: LaunchPlan) -> dict[str, Any]:
    """Build the iam:PutRolePolicy request for those schedules: they may only end machines of this run."""
    return _policy(names.deadline_role_name(plan.run), [_may_end_machines(plan)])


def _may_end_machines(plan: LaunchPlan) -> dict[str, Any]:
    return {
        "Sid": "EndOwnMachines",
        "Effect": "Allow",
        "Action": "ec2:TerminateInstances",
        "Resource": f"arn:{plan.partition}:ec2:*:{plan.account}:instance/*",
        "Condition": {"StringEquals": {f"aws:ResourceTag/{names.RUN_TAG}": plan.run}},
    }


def _trust(service: str, condition: dict[str, Any] | None = None) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement | ({"Condition": condition} if condition else {})]}


def _role(name: str, trust: dict[str, Any], plan: LaunchPlan) -> dict[str, Any]:
    return {
        "RoleName": name,
        "Path": names.IAM_PATH,
        "AssumeRolePolicyDocument": json.dumps(trust),
        "PermissionsBoundary": names.boundary_arn(plan.partition, plan.account),
        "Description": f"ragcun run {plan.run}",
        "Tags": names.tags_of(plan.run),
    }


def _policy(role: str, statements: list[dict[str, Any]]) -> dict[str, Any]:
    document = {"Version": "2012-10-17", "Statement": statements}
    return {"RoleName": role, "PolicyName": POLICY_NAME, "PolicyDocument": json.dumps(document)}


def _create_role(making: Making) -> Sequence[str]:
    return _create(making, build_role(making.plan), build_role_policy(making.plan))


def _create_deadline_role(making: Making) -> Sequence[str]:
    return _create(making, build_deadline_role(making.plan), build_deadline_policy(making.plan))


def _create(making: Making, request: dict[str, Any], policy: dict[str, Any]) -> Sequence[str]:
    if making.aws.ask("iam", "create_role", request, region=GLOBAL, absent=EXISTS) is None:
        _require_same_role(making.aws, request)
    making.aws.call("iam", "put_role_policy", policy, region=GLOBAL)
    return [request["RoleName"]]


def _require_same_role(aws: Aws, request: dict[str, Any]) -> None:
    """Refuse a role of this name that somebody else may use, or that has no boundary."""
    there = aws.call("iam", "get_role", {"RoleName": request["RoleName"]}, region=GLOBAL)["Role"]
    trust = there["AssumeRolePolicyDocument"]
    trust = json.loads(trust) if isinstance(trust, str) else trust
    boundary = there.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    if trust != json.loads(request["AssumeRolePolicyDocument"]) or boundary != request["PermissionsBoundary"]:
        raise UsageError(
            f"role {request['RoleName']}: the account has one of this name, but with another trust policy or boundary",
            "Remove it (`ragcun aws gc` lists it; --delete removes what no machine uses), or choose another --run.",
        )


def _create_profile(making: Making) -> Sequence[str]:
    request = build_instance_profile(making.plan)
    making.aws.ask("iam", "create_instance_profile", request, region=GLOBAL, absent=EXISTS)
    # A profile has at most one role: if there is one, it must be the run's.
    role = build_profile_role(making.plan)
    if making.aws.ask("iam", "add_role_to_instance_profile", role, region=GLOBAL, absent=("LimitExceeded",)) is None:
        profile = {"InstanceProfileName": role["InstanceProfileName"]}
        there = making.aws.call("iam", "get_instance_profile", profile, region=GLOBAL)["InstanceProfile"]["Roles"]
        if [each["RoleName"] for each in there] != [role["RoleName"]]:
            raise UsageError(
                f"instance profile {role['InstanceProfileName']}: it has another role",
                "Remove it (`ragcun aws gc`), or choose another --run.",
            )
    return [role["InstanceProfileName"]]


def _find_role(aws: Aws, region: str, run: str | None) -> Iterator[Found]:
    if run is not None:
        yield Found("role", names.resource_name(run), "", run)
        return
    yield from (each for each in _roles(aws) if not each.id.endswith(names.DEADLINE))


def _find_deadline_role(aws: Aws, region: str, run: str | None) -> Iterator[Found]:
    if run is not None:
        yield Found("deadline role", names.deadline_role_name(run), "", run)
        return
    yield from (
        Found("deadline role", each.id, "", each.run) for each in _roles(aws) if each.id.endswith(names.DEADLINE)
    )


def _roles(aws: Aws) -> Iterator[Found]:
    for entry in aws.pages("iam", "list_roles", {"PathPrefix": names.IAM_PATH}, region=GLOBAL, key="Roles"):
        name = entry["RoleName"]
        yield Found("role", name, "", name.removeprefix(names.PREFIX).removesuffix(names.DEADLINE))


def _find_profile(aws: Aws, region: str, run: str | None) -> Iterator[Found]:
    if run is not None:
        yield Found("instance profile", names.resource_name(run), "", run)
        return
    below = {"PathPrefix": names.IAM_PATH}
    for entry in aws.pages("iam", "list_instance_profiles", below, region=GLOBAL, key="InstanceProfiles"):
        name = entry["InstanceProfileName"]
        yield Found("instance profile", name, "", name.removeprefix(names.PREFIX))


def _remove_role(aws: Aws, found: Found) -> None:
    policy = {"RoleName": found.id, "PolicyName": POLICY_NAME}
    aws.ask("iam", "delete_role_policy", policy, region=GLOBAL, absent=NO_ENTITY)
    aws.ask("iam", "delete_role", {"RoleName": found.id}, region=GLOBAL, absent=NO_ENTITY)


def _remove_profile(aws: Aws, found: Found) -> None:
    profile = {"InstanceProfileName": found.id}
    there = aws.ask("iam", "get_instance_profile", profile, region=GLOBAL, absent=NO_ENTITY)
    for role in there["InstanceProfile"]["Roles"] if there else []:
        both = {**profile, "RoleName": role["RoleName"]}
        aws.ask("iam", "remove_role_from_instance_profile", both, region=GLOBAL, absent=NO_ENTITY)
    aws.ask("iam", "delete_instance_profile", profile, region=GLOBAL, absent=NO_ENTITY)


def profile_exists(aws: Aws, run: str) -> bool:
    """Return whether the account has an instance profile of this run, which every run has."""
    profile = {"InstanceProfileName": names.resource_name(run)}
    return aws.ask("iam", "get_instance_profile", profile, region=GLOBAL, absent=NO_ENTITY) is not None


ROLE = Kind("role", Where.ACCOUNT, names.resource_name, _find_role, _remove_role, _create_role, serves_machines=True)
DEADLINE_ROLE = Kind(
    "deadline role",
    Where.ACCOUNT,
    names.deadline_role_name,
    _find_deadline_role,
    _remove_role,
    _create_deadline_role,
    serves_machines=True,
)
PROFILE = Kind(
    "instance profile", Where.ACCOUNT, names.resource_name, _find_profile, _remove_profile, _create_profile,
    serves_machines=True,
)  # fmt: skip
