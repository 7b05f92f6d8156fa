"""Answers that say "not yet": each once at each call of a launch, and every launch ends with a running machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragcun_cli.aws import transient
from ragcun_cli.aws.calls import AwsError
from ragcun_cli.aws.launch import launch_run
from ragcun_cli.aws.plan import LaunchPlan
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.aws.resources.bucket import remove_bucket_if_empty, remove_objects
from ragcun_cli.aws.resources.table import remove_run
from ragcun_cli.aws.transient import TRANSIENT, Refusal, pauses
from tests.aws.account_contents import leftovers
from tests.aws.cloud import Cloud, refused
from tests.aws.launch_builders import code_of, plan_for

NODES = {"nodes": 2, "email": "someone@example.org"}


@pytest.fixture(autouse=True)
def time_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transient, "SECONDS_TO_SETTLE", 5.0)
    monkeypatch.setattr(transient, "FIRST_PAUSE", 0.001)


def snake(operation: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()


def faults(calls: list[tuple[str, str]]) -> Iterator[tuple[str, str, Refusal]]:
    for service, operation in dict.fromkeys(calls):
        for refusal in TRANSIENT.get((service, snake(operation)), ()):
            yield service, operation, refusal


class Once:
    """Refuses one operation the first time, with an error or, for a fleet, also in its answer."""

    def __init__(self, cloud: Cloud, operation: str, refusal: Refusal, in_answer: bool) -> None:
        self.told = False
        self.operation, self.refusal = operation, refusal
        message = f"Value (x): {refusal.said} (told by the test)"
        if in_answer:
            fleet = {"FleetId": "f", "Errors": [{"ErrorCode": refusal.code, "ErrorMessage": message}], "Instances": []}
            cloud.answers[operation] = lambda asked: fleet if self.first() else None
        else:
            cloud.before = lambda service, name: (
                refused(refusal.code, name, 400, message) if name == operation and self.first() else None
            )

    def first(self) -> bool:
        before, self.told = self.told, True
        return not before


def test_every_call_may_come_too_early_once(cloud: Cloud, checkout: Path) -> None:
    counted = 0
    for variant in ({}, NODES):
        plan = plan_for(cloud, **variant)
        cloud.sent.clear()
        launch_run(cloud.aws(), plan, code_of(checkout), lambda line: None)
        calls = [(service, operation) for service, operation, _ in cloud.sent]
        _remove_all(cloud, plan)
        for service, operation, refusal in faults(calls):
            for in_answer in (False, True) if operation == "CreateFleet" else (False,):
                once = Once(cloud, operation, refusal, in_answer)
                launch_run(cloud.aws(), plan, code_of(checkout), lambda line: None)
                assert once.told, (service, operation, refusal)
                cloud.before = lambda service, operation: None
                cloud.answers.pop(operation, None)
                assert "machine us-east-1" in leftovers(cloud), (service, operation, refusal)
                _remove_all(cloud, plan)
                counted += 1
    print(f"\n{counted} calls x refusals, each told once: {counted} running machines")
    assert counted >= 60


def _remove_all(cloud: Cloud, plan: LaunchPlan) -> None:
    aws = cloud.aws()
    assert remove_run(aws, plan.run, plan.home, list(plan.wishes.regions)) == []
    remove_objects(RunRecord(aws, plan.account, plan.bucket, plan.home, plan.run))
    assert remove_bucket_if_empty(aws, plan.bucket, plan.home)


def test_every_row_of_the_table_is_a_call_that_is_made(cloud: Cloud, checkout: Path) -> None:
    """Others would be dead: the walk above could not show that they work."""
    launch_run(cloud.aws(), plan_for(cloud, **NODES), code_of(checkout), lambda line: None)
    plan = plan_for(cloud, **NODES)
    remove_run(cloud.aws(), plan.run, plan.home, list(plan.wishes.regions))
    made = {(service, snake(operation)) for service, operation, _ in cloud.sent}
    assert set(TRANSIENT) - made == set()


def test_a_refusal_that_lasts_ends_the_waiting(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transient, "SECONDS_TO_SETTLE", 0.02)
    cloud.before = lambda service, operation: refused("NoSuchEntity", operation, 404)
    aws = cloud.aws()
    with pytest.raises(AwsError, match="NoSuchEntity"):
        aws.call(
            "iam", "put_role_policy", {"RoleName": "x", "PolicyName": "y", "PolicyDocument": "{}"}, region="global"
        )
    assert len(cloud.requests("PutRolePolicy")) > 2
    with pytest.raises(AwsError, match="NoSuchEntity"):
        aws.call("iam", "get_role", {"RoleName": "x"}, region="global")
    assert len(cloud.requests("GetRole")) == 1  # not in the table: never repeated


def test_the_same_code_with_another_message_is_no_reason_to_wait() -> None:
    assert transient.is_transient("ec2", "create_fleet", "InvalidParameterValue", "Invalid IAM Instance Profile name x")
    assert not transient.is_transient("ec2", "create_fleet", "InvalidParameterValue", "the disk is too small")
    assert not transient.is_known_to_pass("InvalidParameterValue")
    assert transient.is_known_to_pass("OperationAborted")


def test_pauses_grow_with_jitter_and_end_after_two_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = list(pauses())
    assert sum(found) == pytest.approx(120.0)
    assert all(0 < pause <= 15 for pause in found)
    assert 0.5 <= found[0] <= 1.0
    assert 7.5 <= found[6] <= 15.0
    assert found != list(pauses())


def test_a_transient_answer_does_not_end_the_watching(cloud: Cloud) -> None:
    error: Any = AwsError("told by the test", "", "InvalidLaunchTemplateId.NotFound")
    assert error.passes
    assert AwsError("", "", "RequestLimitExceeded").passes
    assert AwsError("no answer").passes
    assert not AwsError("", "", "UnauthorizedOperation").passes
