"""Check an AWS account before a launch: credentials, permissions, quota and bucket. Reads only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ragcun_cli.aws.calls import GLOBAL, USUAL_REGION, Aws, AwsError, open_session
from ragcun_cli.aws.instances import describe_instance
from ragcun_cli.aws.names import bucket_name
from ragcun_cli.aws.policy import caller_policy, check_boundary
from ragcun_cli.aws.quota import look_up_quota
from ragcun_cli.aws.resources.bucket import NOT_OURS
from ragcun_cli.errors import RagcunError
from ragcun_cli.preflight.checks import FAILED, OK, REMARK, Check, failed

ASKED_AT_ONCE = 50  # actions per simulation
SHOWN = 5
ASSUMED_ROLE = re.compile(r"^arn:(aws[\w-]*):sts::(\d+):assumed-role/([^/]+)/.*$")


def check_account(instance: str, region: str | None, profile: str | None) -> Iterator[Check]:
    """Check the account for launches of this machine type, in the given region or the session's."""
    try:
        aws = Aws(open_session(profile))
        number, user = aws.account()
    except RagcunError as error:
        yield failed("AWS credentials", error)
        return
    where = region or aws.session.region_name or USUAL_REGION
    yield Check("AWS credentials", OK, f"account {number}, as {user}")
    yield _permissions(aws, number, user)
    yield _boundary(aws, number)
    for on_demand in (False, True):
        yield _quota(aws, instance, where, on_demand)
    yield _bucket(aws, number, where)


def _permissions(aws: Aws, account: str, user: str) -> Check:
    """Check every action that the `ragcun aws` commands use by IAM's own simulation, if we may run it."""
    name, cure = "AWS permissions", f"ragcun aws policy --account {account} prints the policy to attach."
    statements = json.loads(caller_policy(account, partition=aws.partition))["Statement"]
    actions = sorted({action for each in statements for action in _listed(each["Action"])})
    source = _principal(aws, user)
    if source.endswith(":root"):
        return Check(name, REMARK, "these are the root user's credentials", "Create a user for ragcun: AWS_SETUP.md.")
    denied = []
    try:
        for start in range(0, len(actions), ASKED_AT_ONCE):
            request = {"PolicySourceArn": source, "ActionNames": actions[start : start + ASKED_AT_ONCE]}
            answers = aws.call("iam", "simulate_principal_policy", request, region=GLOBAL)["EvaluationResults"]
            # Without a resource, an action that is allowed for some resources only is reported as an implicit denial.
            denied += [each["EvalActionName"] for each in answers if each["EvalDecision"] == "explicitDeny"]
            implicit = [each["EvalActionName"] for each in answers if each["EvalDecision"] == "implicitDeny"]
            denied += [action for action in implicit if _is_for_all_resources(action, statements)]
    except AwsError as error:
        return Check(name, REMARK, f"could not be simulated: {error.message}", cure)
    if denied:
        more = f" and {len(denied) - SHOWN} more" if len(denied) > SHOWN else ""
        return Check(name, FAILED, f"not allowed: {', '.join(denied[:SHOWN])}{more}", cure)
    asked = sum(_is_for_all_resources(action, statements) for action in actions)
    seen = f"none of {len(actions)} actions is explicitly denied; {asked} of them are allowed"
    return Check(name, OK, f"{seen}, the others (for ragcun's own resources) cannot be simulated in advance")


def _principal(aws: Aws, user: str) -> str:
    """Return the ARN of the user or role that the caller is, as IAM's simulation needs it.

    A session's ARN lacks the role's path, and IAM Identity Center's roles have one. IAM itself knows it.
    """
    match = ASSUMED_ROLE.match(user)
    if match is None:
        return user
    try:
        return str(aws.call("iam", "get_role", {"RoleName": match[3]}, region=GLOBAL)["Role"]["Arn"])
    except AwsError:  # not allowed: right for roles without a path
        return ASSUMED_ROLE.sub(r"arn:\1:iam::\2:role/\3", user)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _is_for_all_resources(action: str, statements: list[dict[str, Any]]) -> bool:
    return any(
        action in _listed(each["Action"]) and each["Resource"] == "*" and "Condition" not in each for each in statements
    )


def _boundary(aws: Aws, account: str) -> Check:
    name = "AWS permissions boundary"
    try:
        missing, remark = check_boundary(aws, account, None)
    except AwsError as error:
        return failed(name, error)
    if missing:
        return Check(name, FAILED, missing, "AWS_SETUP.md, section 2.")
    return Check(name, REMARK, remark, "Update it: AWS_SETUP.md, section 2.") if remark else Check(name, OK, "is there")


def _quota(aws: Aws, instance: str, region: str, on_demand: bool) -> Check:
    market = "on demand" if on_demand else "spot"
    name = f"AWS quota, {instance} {market}"
    try:
        quota = look_up_quota(aws, describe_instance(aws, instance, (region,)), 1, on_demand, region, "")
    except RagcunError as error:
        return failed(name, error)
    held = "quota not known" if quota.held is None else f"quota {quota.held:g}, {quota.used} in use"
    seen = f"{region}: {quota.needed} vCPU needed, {held} ({quota.name})"
    if quota.suffices:
        return Check(name, OK, seen)
    return Check(name, FAILED if not on_demand else REMARK, seen, f"Request an increase: {quota.increase_page(region)}")


def _bucket(aws: Aws, account: str, region: str) -> Check:
    bucket = bucket_name(account, region)
    try:
        request = {"Bucket": bucket, "ExpectedBucketOwner": account}
        answer = aws.ask("s3", "head_bucket", request, region=region, absent=("404", "NoSuchBucket"))
    except AwsError as error:
        if error.code in NOT_OURS:
            return Check("AWS bucket", FAILED, f"{bucket} is in another account", "Name one of yours with --bucket.")
        return failed("AWS bucket", error)
    return Check(
        "AWS bucket", OK, f"{bucket} {'exists' if answer is not None else 'will be created by the first launch'}"
    )
