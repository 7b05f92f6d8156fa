"""Records that a hostile or broken machine, or somebody with the bucket, has written: nothing is started by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from ragcun_cli.aws import kept, watch
from ragcun_cli.aws.launch_record import LaunchRecord, as_time, now, parse_launch, parse_status
from ragcun_cli.aws.record import RunRecord, end_of, hours_used
from ragcun_cli.errors import DataError
from tests.aws.account_contents import leftovers
from tests.aws.cloud import ACCOUNT, HOME, Cloud, refused
from tests.aws.command_answers import refuses, said
from tests.aws.every_command import BUCKET, end_machines, say
from tests.conftest import RunCommand


@pytest.fixture
def launched(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> RunRecord:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(watch, "MINUTES_WITHOUT_CAPACITY", 0.0001)
    assert ragcun(*launch).exit_code == 0
    return record


def rewrite(record: RunRecord, change: Callable[[dict[str, Any]], Any]) -> None:
    content = record.read_json("launch.json")
    change(content)
    put(record, "launch.json", json.dumps(content).encode())


def put(record: RunRecord, key: str, content: bytes) -> None:
    boto3.client("s3", region_name=HOME).put_object(Bucket=record.bucket, Key=record.prefix + key, Body=content)


DEARER: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "eight times p4d, for a month": (
        lambda launch: launch["wishes"].update(instance="p4d.24xlarge", nodes=8, max_hours=720, on_demand=True),
        "instance: p4d.24xlarge, not g5.xlarge",
    ),
    "no limit of cost": (lambda launch: launch["wishes"].update(max_cost=1e9), "max_cost: 1000000000.0, not None"),
    "another image": (lambda launch: launch["wishes"].update(image="ami-1"), "image: ami-1, not None"),
    "other code": (lambda launch: launch["code"].update(sha256="0" * 64), "code differs"),
    "other recipes": (lambda launch: launch["recipes"].update({"recipes/x.yaml": "0" * 64}), "recipes differs"),
    "hours that were never used": (
        lambda launch: launch["attempts"][0].update(started="2030-01-01T00:00:00+00:00"),
        "attempt 1 is missing, or began at another time",
    ),
    "no attempts": (lambda launch: launch.update(attempts=[]), "attempt 1 is missing, or began at another time"),
}


@pytest.mark.parametrize("kind", DEARER)
def test_a_record_that_asks_for_something_else_starts_no_machine(
    account: Cloud, launched: RunRecord, ragcun: RunCommand, kind: str
) -> None:
    change, expected = DEARER[kind]
    say(launched, state="interrupted")
    end_machines()
    rewrite(launched, change)
    for command in (("watch", "isotropy"), ("launch", "--run", "isotropy", "--resume", "--yes")):
        done = ragcun("aws", *command)
        refuses(done, 2, "its record in the bucket asks for something else", expected, "--accept-record")
    assert len(account.requests("CreateFleet")) == 1


def test_a_record_that_changes_while_it_is_watched_starts_no_machine(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    looks = 0

    def meanwhile(service: str, operation: str) -> None:
        nonlocal looks
        looks += operation == "ListBuckets"
        if looks == 3:
            looks += 1
            rewrite(launched, DEARER["eight times p4d, for a month"][0])
            say(launched, state="interrupted")
            end_machines()

    account.after = meanwhile
    done = ragcun("aws", "watch", "isotropy")
    refuses(done, 1, "asks for something else", "nodes: 8, not 1", "max_hours: 720")
    assert len(account.requests("CreateFleet")) == 1


def test_another_computer_asks_before_it_starts_machines(
    account: Cloud, launched: RunRecord, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    say(launched, state="finished")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115
    done = ragcun("aws", "watch", "isotropy")
    refuses(done, 2, "nobody answered")
    assert "1 x g5.xlarge, spot, in us-east-1, for at most 24 hours in all" in said(done)
    assert ragcun("aws", "watch", "isotropy", "--yes").exit_code == 0
    assert ragcun("aws", "watch", "isotropy").exit_code == 0  # confirmed once


def test_a_colleagues_change_is_confirmed_once(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    say(launched, state="interrupted")
    end_machines()
    rewrite(launched, lambda launch: launch["wishes"].update(max_hours=48.0))
    refuses(ragcun("aws", "watch", "isotropy"), 2, "max_hours: 48.0, not 24.0")
    resume = ("aws", "launch", "--run", "isotropy", "--resume", "--yes")
    assert ragcun(*resume, "--accept-record").exit_code == 0
    say(launched, state="finished", attempt=2)
    assert ragcun("aws", "watch", "isotropy").exit_code == 0
    refuses(ragcun("aws", "launch", "--instance", "g5.xlarge", "--accept-record"), 2, "give --resume too")


def test_own_changes_are_no_surprise_later(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    say(launched, state="interrupted")
    end_machines()
    resume = ("aws", "launch", "--run", "isotropy", "--resume", "--yes")
    assert ragcun(*resume, "--on-demand", "--max-hours", "30", "--idle-minutes", "10").exit_code == 0
    say(launched, state="interrupted", attempt=2)
    end_machines()
    assert ragcun(*resume).exit_code == 0
    launch = launched.launch()
    assert launch is not None
    assert (launch.wishes.on_demand, launch.wishes.max_hours, launch.wishes.idle_minutes) == (True, 30.0, 10)


BROKEN_LAUNCHES = {
    "not JSON": b"{",
    "a list": b"[1, 2]",
    "nothing": b"",
    "nested": b"[" * 100_000,
    "hours without end": lambda launch: launch["wishes"].update(max_hours=1e6),
    "no hours": lambda launch: launch["wishes"].update(max_hours=None),
    "nodes of text": lambda launch: launch["wishes"].update(nodes="eight"),
    "a region that is a path": lambda launch: launch["attempts"][0].update(region="../x"),
    "an instance that is a command": lambda launch: launch["attempts"][0].update(instances=["i-1; rm -rf /"]),
    "a recipe outside": lambda launch: launch["recipes"].update({"recipes/../../x": "0" * 64}),
    "a field of its own": lambda launch: launch.update(more=1),
    "a time without a zone": lambda launch: launch["attempts"][0].update(end="2026-01-01T00:00:00"),
    "another run's": lambda launch: launch.update(run="another"),
}


@pytest.mark.parametrize("kind", BROKEN_LAUNCHES)
def test_whatever_the_launch_record_says_terminate_works(
    account: Cloud, launched: RunRecord, ragcun: RunCommand, kind: str
) -> None:
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}, {"RegionName": "us-west-2"}]}
    broken = BROKEN_LAUNCHES[kind]
    if isinstance(broken, bytes):
        put(launched, "launch.json", broken)
    else:
        rewrite(launched, broken)
    for command in (("status", "isotropy"), ("watch", "isotropy"), ("launch", "--run", "isotropy", "--resume")):
        done = ragcun("aws", *command)
        assert done.exit_code in (1, 2)
        assert "Traceback" not in done.stderr
        assert "launch.json" in said(done)
    assert "machine us-east-1" in leftovers(account)
    done = ragcun("aws", "terminate", "isotropy", "--yes")
    assert done.exit_code == 0, done.stderr
    assert leftovers(account) == set()


BROKEN_STATES = {
    "a list": b"[1, 2]",
    "not JSON": b"{",
    "a state of its own": b'{"state": "paid", "attempt": 1}',
    "an attempt of text": b'{"state": "running", "attempt": "one"}',
    "a reason without end": b'{"state": "failed", "attempt": 1, "reason": "' + b"x" * 10_000 + b'"}',
    "trainings of text": b'{"state": "running", "attempt": 1, "trainings": "many"}',
}


@pytest.mark.parametrize("kind", BROKEN_STATES)
def test_whatever_the_state_says_every_command_works(
    account: Cloud, launched: RunRecord, ragcun: RunCommand, kind: str
) -> None:
    put(launched, "status.json", BROKEN_STATES[kind])
    done = ragcun("aws", "status", "isotropy")
    assert done.exit_code == 0, done.stderr
    assert "What the machine said cannot be used" in done.stderr
    assert "status.json" in said(done)
    assert "starting" in ragcun("aws", "status").stdout
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()


def test_terminate_finds_parts_whose_objects_are_gone(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    store = launched.store()
    store.delete(store.keys(""))
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()
    refuses(ragcun("aws", "terminate", "isotropy", "--yes"), 2, "there is no run of this name")


def test_terminate_ends_the_machine_although_the_record_cannot_be_written(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    account.before = lambda service, operation: refused("AccessDenied", operation) if operation == "PutObject" else None
    done = ragcun("aws", "terminate", "isotropy", "--yes")
    account.before = lambda service, operation: None
    assert "machine us-east-1" not in leftovers(account), done.stderr


def test_control_characters_of_a_machine_do_not_reach_the_terminal(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    """OSC 52 would set the clipboard, ESC [2J clear the screen."""
    evil = "\x1b]52;c;cm0gLXJmIH4=\x07\x1b[2J"
    say(launched, state="failed", reason=evil, trainings=[{"name": evil, "state": evil}], stage=evil)
    logs = boto3.client("logs", region_name=HOME)
    stream = {"logGroupName": "/ragcun/isotropy", "logStreamName": "1-i-1"}
    logs.create_log_stream(**stream)
    logs.put_log_events(**stream, logEvents=[{"timestamp": 1_800_000_000_000, "message": evil}])
    for command in (("status", "isotropy"), ("status",), ("watch", "isotropy"), ("logs", "isotropy")):
        done = ragcun("aws", *command)
        for sign in ("\x1b]52", "\x1b[2J", "\x07"):
            assert sign not in done.stdout + done.stderr, command
    assert "\\x1b]52" in ragcun("aws", "status", "isotropy").stdout


def test_a_machine_cannot_keep_its_hours_from_counting(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    """It says that it ended years ago; what counts is when S3 heard it."""
    before = launched.launch()
    assert before is not None
    first = before.attempts[0]
    older = before.with_attempts([replace(first, started="2026-01-01T00:00:00+00:00")])
    launched.write_launch(older)
    kept.keep(older, BUCKET)
    say(launched, state="interrupted", updated="2026-01-01T00:00:01+00:00")
    end_machines()
    assert json.loads(ragcun("aws", "status", "isotropy", "--json").stdout)["hours"] > 24
    refuses(ragcun("aws", "launch", "--run", "isotropy", "--resume", "--yes"), 2, "has used")


def test_each_attempt_counts_some_time(launched: RunRecord) -> None:
    launch = launched.launch()
    assert launch is not None
    started = now() - timedelta(hours=1)
    attempt = replace(launch.attempts[0], started=started.isoformat(), end=(started + timedelta(hours=24)).isoformat())
    assert (end_of(attempt, started) - started).total_seconds() == 360
    assert hours_used([attempt], started) == pytest.approx(0.1)
    young = replace(attempt, started=now().isoformat())  # not more than it can have run
    assert hours_used([young], now()) < 0.01
    ended = replace(attempt, ended=attempt.started)
    assert hours_used([ended, attempt], started) == pytest.approx(0.1)
    late = as_time(attempt.end)
    assert hours_used([attempt], late) == pytest.approx(24)


def test_the_copy_is_the_users_own(launched: RunRecord) -> None:
    path = kept.kept_file(ACCOUNT, BUCKET, "isotropy")
    assert path.is_file()
    copy = kept.kept_record(ACCOUNT, BUCKET, "isotropy")
    assert copy == launched.launch()
    path.write_text("{}")
    assert kept.kept_record(ACCOUNT, BUCKET, "isotropy") is None
    kept.forget(ACCOUNT, BUCKET, "isotropy")
    kept.forget(ACCOUNT, BUCKET, "isotropy")
    assert not path.exists()


def test_records_come_back_as_they_were(launched: RunRecord) -> None:
    launch = launched.launch()
    assert isinstance(launch, LaunchRecord)
    again = parse_launch(json.dumps(launch.as_json()).encode(), "here")
    assert again == launch
    with pytest.raises(DataError, match=r"here: not a launch record: the whole: .*"):
        parse_launch(b"null", "here")
    status = parse_status(b'{"state": "running", "attempt": 2, "of_later_versions": 1}')
    assert not isinstance(status, str)
    assert (status.state, status.attempt, status.trainings) == ("running", 2, ())
