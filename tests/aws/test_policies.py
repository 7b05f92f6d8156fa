"""What ragcun's user and its machines may do: as little as possible, found from the calls that are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ragcun_cli.aws.policy import caller_policy
from ragcun_cli.aws.resources import iam as identity
from tests.aws.cloud import ACCOUNT, Cloud
from tests.aws.every_command import use_everything
from tests.aws.launch_builders import plan_for
from tests.conftest import RunCommand

# IAM's names of actions, where they are not the call's own (AWS's Service Authorization Reference).
OTHER_NAMES = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListBuckets": "s3:ListAllMyBuckets",
    "s3:HeadObject": "s3:GetObject",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "service-quotas:GetServiceQuota": "servicequotas:GetServiceQuota",
    "budgets:CreateBudget": "budgets:ModifyBudget",
    "budgets:DeleteBudget": "budgets:ModifyBudget",
    "budgets:DescribeBudgets": "budgets:ViewBudget",
}
# What AWS checks besides the call itself: the fleet starts instances, roles are handed over, things are tagged as they
# are made, the account's first spot machine makes two roles of AWS's own, an upload may be broken off. The shell is
# opened by AWS's own command.
IMPLIED = {
    "ec2:RunInstances", "ec2:CreateTags", "iam:PassRole", "iam:TagRole", "iam:TagInstanceProfile",
    "iam:CreateServiceLinkedRole", "logs:TagResource", "s3:AbortMultipartUpload", "ssm:StartSession",
    "ssm:ResumeSession", "ssm:TerminateSession", "ssmmessages:OpenDataChannel",
}  # fmt: skip
# Actions for which AWS knows no resource or condition that would narrow them.
ONLY_WILDCARD = ("Describe", "List", "GetProducts", "GetServiceQuota", "GetCallerIdentity")


def statements() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(caller_policy(ACCOUNT))["Statement"]
    return found


def actions(statement: dict[str, Any]) -> list[str]:
    action = statement["Action"]
    return [action] if isinstance(action, str) else list(action)


def test_the_callers_policy_is_the_minimum(account: Cloud, checkout: Path, tmp_path: Path, ragcun: RunCommand) -> None:
    """Every command is used; each call needs an action of the policy, and each action is needed by a call."""
    use_everything(account, checkout, tmp_path, ragcun)
    needed = {OTHER_NAMES.get(call, call) for call in account.operations()} | IMPLIED
    granted = [action for statement in statements() for action in actions(statement)]
    assert set(granted) - needed == set(), "granted, but never used"
    assert needed - set(granted) == set(), "used, but not granted"
    assert sorted(set(granted) - {"ssm:StartSession"}) == sorted(each for each in granted if each != "ssm:StartSession")


def test_the_callers_policy_has_no_needless_wildcard() -> None:
    for statement in statements():
        assert all("*" not in action for action in actions(statement))
        if statement["Resource"] == "*" and "Condition" not in statement:
            reading = [each for each in actions(statement) if each.split(":")[1].startswith(ONLY_WILDCARD)]
            # What does not exist yet bears no tag; what it may cost is held by EC2's quotas.
            making = [each for each in actions(statement) if statement["Sid"] == "Make"]
            assert set(actions(statement)) == set(reading + making), statement


def test_a_machine_may_do_nothing_but_its_run(cloud: Cloud) -> None:
    plan = plan_for(cloud)
    policy = json.loads(identity.build_role_policy(plan)["PolicyDocument"])
    for statement in policy["Statement"]:
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        if statement["Sid"] == "Session":
            assert resources == ["*"]  # AWS knows no resource for these
            continue
        assert all("*" not in action for action in actions(statement))
        shared = [f"arn:aws:s3:::{plan.bucket}/datasets/*"]  # downloads, which all runs may read
        own = [each for each in resources if each not in shared or statement["Action"] != "s3:GetObject"]
        limited = all("/isotropy" in each for each in own) or "isotropy" in json.dumps(statement["Condition"])
        assert limited, statement
        assert "*" not in resources


def test_the_schedule_may_do_nothing_but_end_machines_of_its_run(cloud: Cloud) -> None:
    plan = plan_for(cloud)
    (statement,) = json.loads(identity.build_deadline_policy(plan)["PolicyDocument"])["Statement"]
    assert statement["Action"] == "ec2:TerminateInstances"
    assert statement["Condition"] == {"StringEquals": {"aws:ResourceTag/ragcun:run": "isotropy"}}
    trust = json.loads(identity.build_deadline_role(plan)["AssumeRolePolicyDocument"])["Statement"][0]
    assert trust["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
