"""`preflight --aws`: what of an account would stop a launch; nothing is made."""

from __future__ import annotations

from typing import Any

import pytest
from moto import mock_aws

from ragcun_cli.preflight import account
from ragcun_cli.preflight.checks import FAILED, OK, REMARK, Check
from tests.aws.cloud import ACCOUNT, Cloud, make_boundary, refused


def allowed(asked: dict[str, Any], *denied: str) -> dict[str, Any]:
    return {
        "EvaluationResults": [
            {"EvalActionName": name, "EvalDecision": "explicitDeny" if name in denied else "allowed"}
            for name in asked["ActionNames"]
        ]
    }


def checks_of(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    monkeypatch.setattr(account, "open_session", lambda profile: cloud.session())
    return {check.name: check for check in account.check_account("p4d.24xlarge", None, None)}


@mock_aws
def test_an_account_that_may_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    make_boundary()
    cloud = Cloud(answers={"SimulatePrincipalPolicy": allowed})
    found = checks_of(cloud, monkeypatch)
    assert {check.status for check in found.values()} == {OK}
    assert "96 vCPU needed, quota 192" in found["AWS quota, p4d.24xlarge spot"].seen
    assert "will be created" in found["AWS bucket"].seen
    asked = {name for each in cloud.requests("SimulatePrincipalPolicy") for name in each["ActionNames"]}
    assert {"ec2:CreateFleet", "s3:CreateBucket", "iam:PassRole"} <= asked
    assert not [
        each for each in cloud.operations() if each.split(":")[1].startswith(("Create", "Run", "Put", "Delete"))
    ]


@mock_aws
def test_what_would_stop_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Cloud(quota=0.0, answers={"SimulatePrincipalPolicy": lambda asked: allowed(asked, "ec2:CreateFleet")})
    found = checks_of(cloud, monkeypatch)
    assert found["AWS permissions boundary"].status == FAILED
    assert "has no policy ragcun-boundary" in found["AWS permissions boundary"].seen
    assert found["AWS permissions"].status == FAILED
    assert found["AWS permissions"].seen == "not allowed: ec2:CreateFleet"
    assert found["AWS quota, p4d.24xlarge spot"].status == FAILED
    assert "servicequotas" in found["AWS quota, p4d.24xlarge spot"].cure


@mock_aws
def test_a_simulation_that_is_not_allowed_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(asked: dict[str, Any]) -> dict[str, Any]:
        raise refused("AccessDenied", "SimulatePrincipalPolicy")

    found = checks_of(Cloud(answers={"SimulatePrincipalPolicy": denied}), monkeypatch)
    assert found["AWS permissions"].status == REMARK


@mock_aws
def test_credentials_of_no_use_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def expired(asked: dict[str, Any]) -> dict[str, Any]:
        raise refused("ExpiredToken", "GetCallerIdentity")

    found = checks_of(Cloud(answers={"GetCallerIdentity": expired}), monkeypatch)
    assert list(found) == ["AWS credentials"]
    assert "have expired" in found["AWS credentials"].seen


@mock_aws
def test_the_role_of_a_login_is_simulated_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """IAM Identity Center's roles have one, which a session's own ARN does not show."""
    role = "AWSReservedSSO_ragcun_0123456789abcdef"
    cloud = Cloud(answers={"SimulatePrincipalPolicy": allowed})
    cloud.answers["GetCallerIdentity"] = lambda asked: {
        "Account": ACCOUNT, "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/someone"
    }  # fmt: skip
    arn = f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/eu-west-1/{role}"
    cloud.answers["GetRole"] = lambda asked: {"Role": {"Arn": arn if asked["RoleName"] == role else ""}}
    assert checks_of(cloud, monkeypatch)["AWS permissions"].status == OK
    assert {each["PolicySourceArn"] for each in cloud.requests("SimulatePrincipalPolicy")} == {arn}

    def denied(asked: dict[str, Any]) -> dict[str, Any]:
        raise refused("AccessDenied", "GetRole")

    cloud.answers["GetRole"] = denied
    cloud.sent.clear()
    checks_of(cloud, monkeypatch)
    without_path = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    assert {each["PolicySourceArn"] for each in cloud.requests("SimulatePrincipalPolicy")} == {without_path}
