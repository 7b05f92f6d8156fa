"""Staying with a run: its log as it comes, and another machine whenever one was taken away."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from ragcun_cli.aws import runs, watch
from ragcun_cli.aws.launch_record import now
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.aws.runs import find_run
from tests.aws.cloud import ACCOUNT, HOME, Cloud, refused
from tests.aws.command_answers import no_capacity, said
from tests.aws.every_command import BUCKET, end_machines, make_older, say
from tests.conftest import RunCommand


@pytest.fixture
def record(account: Cloud, checkout: Path, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch) -> RunRecord:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(watch, "SECONDS_TO_SHUT_DOWN", 0.05)
    monkeypatch.setattr(watch, "SECONDS_BETWEEN_LOG_LOOKS", 0.01)
    monkeypatch.setattr(watch, "MINUTES_WITHOUT_CAPACITY", 0.0001)
    done = ragcun("aws", "launch", "--instance", "g5.xlarge", "--recipe", "isotropy", "--code", checkout, "--yes")
    assert done.exit_code == 0
    return RunRecord(account.aws(), ACCOUNT, BUCKET, HOME, "isotropy")


def test_watch_starts_machines_until_the_run_is_done(account: Cloud, record: RunRecord, ragcun: RunCommand) -> None:
    """The first is interrupted, the second is lost without a word, for the third there is no capacity at first."""
    say(record, state="interrupted", attempt=1)
    end_machines()
    answers = iter([None, no_capacity("InsufficientInstanceCapacity"), None])

    def answer(asked: dict[str, object]) -> dict[str, object] | None:
        return next(answers)

    account.answers["CreateFleet"] = answer
    looks = 0

    def goes_on(service: str, operation: str) -> None:
        nonlocal looks
        looks += operation == "HeadBucket"
        attempts = len(account.requests("CreateSchedule"))
        if attempts == 2 and looks == 4:
            end_machines()
        if attempts == 3 and looks > 8:
            account.after = lambda service, operation: None
            say(record, state="finished", attempt=3)
            end_machines()

    account.after = goes_on
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 0, done.stderr
    for expected in (
        "interrupted: starting another machine",
        "lost: EC2 took it back (Server.SpotInstanceTermination): starting another machine",
        "no capacity",
        "Finished",
    ):
        assert expected in done.stderr
    assert [attempt["number"] for attempt in (record.read_json("launch.json") or {})["attempts"]] == [1, 2, 3]
    again = ragcun("aws", "watch", "isotropy", "--json")
    assert (again.exit_code, json.loads(again.stdout)["state"]) == (0, "finished")


@pytest.mark.parametrize("state", ["failed", "idle", "out-of-time"])
def test_what_a_new_machine_would_not_mend_is_not_tried_again(
    account: Cloud, record: RunRecord, ragcun: RunCommand, state: str
) -> None:
    say(record, state=state, reason="the reason")
    end_machines()
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 1
    assert f"run isotropy: {state} in stage training: the reason" in " ".join(done.stderr.replace("│", " ").split())
    assert len(account.requests("CreateFleet")) == 1


def test_machines_that_end_without_a_word_are_not_started_for_ever(
    account: Cloud, record: RunRecord, ragcun: RunCommand
) -> None:
    account.after = lambda service, operation: end_machines() if operation == "CreateSchedule" else None
    end_machines()
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 1
    assert "3 machines in a row have ended without reporting" in done.stderr
    assert len(account.requests("CreateFleet")) == 3


def test_what_ec2_does_not_show_yet_is_not_started_again(
    account: Cloud, record: RunRecord, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SECONDS_TO_SHOW", 300.0)
    end_machines()
    assert "starting" in ragcun("aws", "status", "isotropy").stdout
    done = ragcun("aws", "launch", "--run", "isotropy", "--resume", "--yes")
    assert done.exit_code == 2


def test_a_network_that_is_away_does_not_end_the_watching(
    account: Cloud, record: RunRecord, ragcun: RunCommand
) -> None:
    say(record, state="finished")
    answers = iter([refused("ExpiredToken", "x", 400), EndpointConnectionError(endpoint_url="https://sts.x")])
    looks = 0

    def fails(service: str, operation: str) -> Exception | None:
        nonlocal looks
        looks += operation == "ListBuckets"
        return next(answers, None) if looks > 1 else None  # the command's first look goes well

    account.before = fails
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 0
    assert "have expired" in done.stderr
    assert "no answer from AWS" in done.stderr


def test_a_quota_that_just_suffices_is_enough_for_the_next_machine(
    account: Cloud, record: RunRecord, ragcun: RunCommand
) -> None:
    """The interrupted machine still runs when the next is planned: it is ended first, and counts for nothing."""
    account.quota = 4
    say(record, state="interrupted")
    looks = iter(range(100))

    def finish(service: str, operation: str) -> None:
        if operation == "CreateSchedule" and next(looks) == 0:
            say(record, state="finished", attempt=2)

    account.after = finish
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 0, done.stderr
    first, second = (record.read_json("launch.json") or {})["attempts"]
    ec2 = boto3.client("ec2", region_name=HOME)
    (state,) = ec2.describe_instances(InstanceIds=first["instances"])["Reservations"][0]["Instances"]
    assert state["State"]["Name"] == "terminated"
    assert second["instances"] != first["instances"]


def test_terminate_ends_the_watching_too(account: Cloud, record: RunRecord, ragcun: RunCommand) -> None:
    ragcun("aws", "terminate", "isotropy", "--keep-bucket", "--yes")
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 1
    assert "terminated" in done.stderr
    assert len(account.requests("CreateFleet")) == 1


def test_hours_of_a_machine_that_never_spoke_count(account: Cloud, record: RunRecord, ragcun: RunCommand) -> None:
    make_older(record, hours=30, end=(now() - timedelta(hours=6)).isoformat())
    end_machines()
    shown = json.loads(ragcun("aws", "status", "isotropy", "--json").stdout)
    assert (shown["hours"], shown["state"]) == (24, "out-of-time")
    done = ragcun("aws", "launch", "--resume", "--run", "isotropy", "--yes")
    assert "has used 24.00 of its 24 hours" in done.stderr


def test_the_log_is_followed_to_the_end(account: Cloud, record: RunRecord, ragcun: RunCommand) -> None:
    logs = boto3.client("logs", region_name=HOME)
    stream = {"logGroupName": "/ragcun/isotropy", "logStreamName": "1-i-1"}
    logs.create_log_stream(**stream)

    def write(*lines: str) -> None:
        stamp = int(time.time() * 1000)
        logs.put_log_events(**stream, logEvents=[{"timestamp": stamp, "message": line} for line in lines])

    write("one", "two")
    assert ragcun("aws", "logs", "isotropy").stdout.splitlines() == ["one", "two"]
    looks = 0

    def more(service: str, operation: str) -> None:
        nonlocal looks
        if operation == "FilterLogEvents":
            looks += 1
            if looks == 2:
                write("three")
                say(record, state="finished")
                end_machines()

    account.after = more
    assert ragcun("aws", "logs", "isotropy", "--follow").stdout.splitlines() == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("Client.UserInitiatedShutdown", "it was ended by hand"),
        ("Client.InternalError", "KMS key"),
        ("Client.VolumeLimitExceeded", "limit of disk space"),
    ],
)
def test_a_machine_that_its_owner_or_a_lasting_cause_ended_is_not_replaced(
    account: Cloud, record: RunRecord, ragcun: RunCommand, code: str, expected: str
) -> None:
    end_machines(code, "told by the test")
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 1
    for text in (expected, code, "launch --run isotropy --resume"):
        assert text in said(done)
    assert len(account.requests("CreateFleet")) == 1
    status = ragcun("aws", "status", "isotropy").stdout
    assert expected in status
    assert code in status
    assert json.loads(ragcun("aws", "status", "isotropy", "--json").stdout)["reason"].endswith(f"({code})")
    # The user may start another one all the same.
    assert ragcun("aws", "launch", "--run", "isotropy", "--resume", "--yes").exit_code == 0


def test_a_machine_that_ended_by_itself_or_by_aws_is_replaced(
    account: Cloud, record: RunRecord, ragcun: RunCommand
) -> None:
    for number, code in enumerate(("Client.InstanceInitiatedShutdown", "Server.InternalError"), start=1):
        end_machines(code, "told by the test")
        assert ragcun("aws", "status", "isotropy", "--json").exit_code == 0
        found = find_run(account.aws(), ACCOUNT, "isotropy", HOME, None)
        assert found is not None
        assert (found.state(), found.may_go_on(), len(found.launch.attempts)) == ("lost", True, number)
        ragcun("aws", "launch", "--run", "isotropy", "--resume", "--yes")


def test_a_transient_refusal_does_not_end_the_watching(account: Cloud, record: RunRecord, ragcun: RunCommand) -> None:
    """The launch itself waits two minutes; the watching then tries again later."""
    say(record, state="interrupted")
    end_machines()
    refusals = iter([refused("InvalidLaunchTemplateId.NotFound", "CreateFleet", 400)] * 30)

    def until_settled(service: str, operation: str) -> Exception | None:
        return next(refusals, None) if operation == "CreateFleet" else None

    def finish(service: str, operation: str) -> None:
        if operation == "CreateSchedule":
            say(record, state="finished", attempt=2)

    account.before, account.after = until_settled, finish
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 0, done.stderr
    assert "InvalidLaunchTemplateId.NotFound" in done.stderr
    assert "Next attempt in" in done.stderr
