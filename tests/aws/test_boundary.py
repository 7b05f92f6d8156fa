"""Nobody who has the caller's policy can get more than that policy and the boundary together.

Covered, from the two policies alone: every operation that botocore knows of any service, in any order, since a call
changes what may be called next only by making or changing an identity, by handing a role to a service, or by a tag that
a policy looks at; each of these is followed below. Not covered: policies of resources and of organisations, which can
only narrow, and bugs of AWS's own evaluation. Roles that an earlier ragcun made below /ragcun/ have no boundary: their
policies cannot be changed with the caller's policy, but they stay what they are.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import botocore.session
import pytest

from ragcun_cli.aws.policy import boundary_policy, caller_policy
from ragcun_cli.aws.resources import iam
from tests.aws.cloud import ACCOUNT, Cloud
from tests.aws.iam_evaluation import actions_of, allows, listed
from tests.aws.launch_builders import plan_for

CALLER: dict[str, Any] = json.loads(caller_policy(ACCOUNT))
BOUNDARY: dict[str, Any] = json.loads(boundary_policy(ACCOUNT))
ARN = f"arn:aws:iam::{ACCOUNT}:policy/ragcun-boundary"
OURS, OTHER = f"arn:aws:iam::{ACCOUNT}:role/ragcun/x", f"arn:aws:iam::{ACCOUNT}:role/Admin"
# Every write of IAM that the caller may do, and why it gives nothing away; each reason is checked below.
HARMLESS = {
    "iam:CreateRole": "only with the boundary",
    "iam:PutRolePolicy": "only for a role that has the boundary",
    "iam:DeleteRole": "takes away",
    "iam:DeleteRolePolicy": "takes away",
    "iam:CreateInstanceProfile": "is empty",
    "iam:DeleteInstanceProfile": "takes away",
    "iam:AddRoleToInstanceProfile": "needs PassRole for the role",
    "iam:RemoveRoleFromInstanceProfile": "takes away",
    "iam:TagRole": "no policy looks at roles' tags",
    "iam:TagInstanceProfile": "no policy looks at their tags",
    "iam:CreateServiceLinkedRole": "only AWS's own for spot and fleets",
}


def operations() -> list[str]:
    """Every operation of every service, as IAM writes it."""
    session = botocore.session.get_session()
    found = []
    for service in session.get_available_services():
        model = session.get_service_model(service)
        prefix = model.metadata.get("signingName", model.endpoint_prefix)
        found += [f"{prefix}:{name}" for name in model.operation_names]
    return found


def test_what_the_caller_may_write_in_iam_is_known_and_harmless() -> None:
    every = [name for name in operations() if name.startswith("iam:")]
    assert len(every) > 150
    writing = {name for name in every if not name.split(":")[1].startswith(("Get", "List", "Simulate", "Generate"))}
    assert actions_of(CALLER) & writing == set(HARMLESS) & writing
    assert {name for name in actions_of(CALLER) if name.startswith("iam:")} - writing == {
        "iam:GetInstanceProfile", "iam:GetPolicy", "iam:GetPolicyVersion", "iam:GetRole", "iam:ListInstanceProfiles",
        "iam:ListRoles", "iam:PassRole",
    }  # fmt: skip
    for service in ("sts", "organizations", "sso", "sso-admin", "identitystore", "lambda", "cloudformation"):
        granted = {name for name in actions_of(CALLER) if name.startswith(f"{service}:")}
        assert granted <= {"sts:GetCallerIdentity"}


@pytest.mark.parametrize("action", ["iam:CreateRole", "iam:PutRolePolicy"])
def test_no_role_is_made_or_given_permissions_without_the_boundary(action: str) -> None:
    contexts: list[dict[str, str]] = [{}, {"iam:PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/other"}]
    contexts.append({"iam:PermissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess"})
    for role, context in itertools.product((OURS, OTHER), contexts):
        assert not allows(CALLER, action, role, context), (role, context)
    assert allows(CALLER, action, OURS, {"iam:PermissionsBoundary": ARN})
    assert not allows(CALLER, action, OTHER, {"iam:PermissionsBoundary": ARN})


def test_the_boundary_itself_cannot_be_changed_or_taken_off() -> None:
    for action in (
        "iam:DeleteRolePermissionsBoundary", "iam:PutRolePermissionsBoundary", "iam:CreatePolicyVersion",
        "iam:SetDefaultPolicyVersion", "iam:DeletePolicy", "iam:CreatePolicy", "iam:AttachRolePolicy",
        "iam:AttachUserPolicy", "iam:PutUserPolicy", "iam:UpdateAssumeRolePolicy", "iam:DetachRolePolicy",
    ):  # fmt: skip
        for resource, context in itertools.product((OURS, OTHER, ARN, "*"), ({}, {"iam:PermissionsBoundary": ARN})):
            assert not allows(CALLER, action, resource, context), (action, resource)


def test_only_bounded_roles_are_handed_over_and_only_to_machines_and_schedules() -> None:
    services = ("ec2.amazonaws.com", "scheduler.amazonaws.com")
    for service in (*services, "lambda.amazonaws.com", "glue.amazonaws.com", "cloudformation.amazonaws.com", ""):
        context = {"iam:PassedToService": service} if service else {}
        assert allows(CALLER, "iam:PassRole", OURS, context) == (service in services)
        assert not allows(CALLER, "iam:PassRole", OTHER, context)
    for name, allowed in (("spot", True), ("ec2fleet", True), ("sso", False), ("organizations", False)):
        role = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/{name}.amazonaws.com/X"
        context = {"iam:AWSServiceName": f"{name}.amazonaws.com"}
        assert allows(CALLER, "iam:CreateServiceLinkedRole", role, context) == allowed


def test_a_bounded_role_cannot_make_or_become_another_identity() -> None:
    """Whatever its own policy and trust say, it has the boundary at most: the search ends after one step."""
    everything = {name for name in operations() if allows(BOUNDARY, name, "*") or name in actions_of(BOUNDARY)}
    for prefix in (
        "iam",
        "sts",
        "organizations",
        "sso",
        "lambda",
        "cloudformation",
        "scheduler",
        "kms",
        "secretsmanager",
    ):
        assert not {name for name in everything if name.startswith(f"{prefix}:")}
    assert all("*" not in action for action in actions_of(BOUNDARY))
    session = {"ssm:UpdateInstanceInformation"} | {
        f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")
    }
    for statement in BOUNDARY["Statement"]:
        if "*" in listed(statement["Resource"]):
            assert set(statement["Action"]) == session  # AWS knows no resource for these


def test_no_policy_looks_at_tags_that_the_caller_can_set_on_what_is_there() -> None:
    text = json.dumps([CALLER, BOUNDARY])
    assert "aws:PrincipalTag" not in text
    assert "iam:ResourceTag" not in text
    # EC2's tag `ragcun:run` lets the caller end and enter machines; it can only be set on what is being made.
    for resource in ("instance/i-1", "volume/vol-1", "security-group/sg-1"):
        arn = f"arn:aws:ec2:us-east-1:{ACCOUNT}:{resource}"
        assert not allows(CALLER, "ec2:CreateTags", arn)
        assert not allows(CALLER, "ec2:CreateTags", arn, {"ec2:CreateAction": "CreateImage"})
        assert allows(CALLER, "ec2:CreateTags", arn, {"ec2:CreateAction": "RunInstances"})
    assert not allows(CALLER, "ec2:TerminateInstances", f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/i-1")


def test_what_the_machines_need_is_within_the_boundary(cloud: Cloud) -> None:
    plan = plan_for(cloud)
    for request in (iam.build_role_policy(plan), iam.build_deadline_policy(plan)):
        for statement in json.loads(request["PolicyDocument"])["Statement"]:
            context = {"aws:ResourceTag/ragcun:run": plan.run}
            for action, resource in itertools.product(listed(statement["Action"]), listed(statement["Resource"])):
                assert allows(BOUNDARY, action, resource.replace("*", "x"), context), (action, resource)
    for request in (iam.build_role(plan), iam.build_deadline_role(plan)):
        assert request["PermissionsBoundary"] == ARN


def test_a_machine_may_write_only_what_it_makes(cloud: Cloud) -> None:
    plan = plan_for(cloud)
    policy = json.loads(iam.build_role_policy(plan)["PolicyDocument"])
    run = f"arn:aws:s3:::{plan.bucket}/runs/{plan.run}"
    for name in ("launch.json", "code/0.tar.gz", "recipes/isotropy.yaml", "inputs/0/x", "other", "status.json.x"):
        assert allows(policy, "s3:GetObject", f"{run}/{name}")
        for action in ("s3:PutObject", "s3:DeleteObject"):
            assert not allows(policy, action, f"{run}/{name}"), name
    written = ("status.json", "files.json", "results/a/b.json", "report/t", "logs/x", "checkpoints/x/y", "nodes/1/x")
    for name in written:
        assert allows(policy, "s3:PutObject", f"{run}/{name}")
    assert allows(policy, "s3:GetObject", f"arn:aws:s3:::{plan.bucket}/datasets/fever.zip")
    for key in ("datasets/fever.zip", "runs/other/status.json", "runs/isotropy-2/status.json", "caches/other/x"):
        assert not allows(policy, "s3:PutObject", f"arn:aws:s3:::{plan.bucket}/{key}")


def test_other_partitions_have_their_own_arns() -> None:
    for text in (caller_policy(ACCOUNT, None, "aws-cn"), boundary_policy(None, "mine", "aws-us-gov")):
        assert "arn:aws:" not in text
    assert "arn:aws-us-gov:s3:::mine/*" in boundary_policy(None, "mine", "aws-us-gov")
