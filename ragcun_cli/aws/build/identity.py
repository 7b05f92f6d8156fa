"""What a run's machines may do: write and read its objects, write its log, open a session, end its machines."""

from __future__ import annotations

import json
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.plan import LaunchPlan

POLICY_NAME = "run"


def build_role(plan: LaunchPlan) -> dict[str, Any]:
    """Build the iam:CreateRole request for the machines."""
    return _role(names.resource_name(plan.run), _trust("ec2.amazonaws.com"), plan)


def build_role_policy(plan: LaunchPlan) -> dict[str, Any]:
    """Build the machines' iam:PutRolePolicy request. AWS cannot limit the five session actions to a resource."""
    objects = f"arn:aws:s3:::{plan.bucket}"
    prefixes = (names.prefix_of(plan.run), names.cache_prefix_of(plan.run))
    group = f"arn:aws:logs:*:{plan.account}:log-group:{names.log_group_name(plan.run)}"
    statements: list[dict[str, Any]] = [
        {
            "Sid": "RunObjects",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            "Resource": [f"{objects}/{prefix}*" for prefix in prefixes],
        },
        {
            "Sid": "RunList",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": objects,
            "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}},
        },
        {
            "Sid": "RunLog",
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
    """Build the iam:CreateRole request for the schedule that ends the machines."""
    trust = _trust("scheduler.amazonaws.com", {"StringEquals": {"aws:SourceAccount": plan.account}})
    return _role(names.deadline_role_name(plan.run), trust, plan)


def build_deadline_policy(plan: LaunchPlan) -> dict[str, Any]:
    """Build the iam:PutRolePolicy request for that schedule: it may only end machines of this run."""
    return _policy(names.deadline_role_name(plan.run), [_may_end_machines(plan)])


def _may_end_machines(plan: LaunchPlan) -> dict[str, Any]:
    return {
        "Sid": "EndOwnMachines",
        "Effect": "Allow",
        "Action": "ec2:TerminateInstances",
        "Resource": f"arn:aws:ec2:*:{plan.account}:instance/*",
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
        "Description": f"ragcun run {plan.run}",
        "Tags": names.tags_of(plan.run),
    }


def _policy(role: str, statements: list[dict[str, Any]]) -> dict[str, Any]:
    document = {"Version": "2012-10-17", "Statement": statements}
    return {"RoleName": role, "PolicyName": POLICY_NAME, "PolicyDocument": json.dumps(document)}
