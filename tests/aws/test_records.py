"""Records that a hostile or broken machine, or somebody with the bucket, has written: nothing is started by them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from ragcun_cli.aws import kept
from ragcun_cli.aws.launch_record import LaunchRecord, parse_launch, parse_status
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.errors import DataError, UsageError
from tests.aws.account_contents import leftovers
from tests.aws.bucket_writes import put, rewrite
from tests.aws.cloud import ACCOUNT, HOME, Cloud
from tests.aws.command_answers import refuses, said
from tests.aws.every_command import BUCKET, end_machines, say
from tests.conftest import RunCommand

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
        "attempt 1 is missing, or is not as this computer knows it",
    ),
    "no attempts": (
        lambda launch: launch.update(attempts=[]),
        "attempt 1 is missing, or is not as this computer knows it",
    ),
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
        refuses(
            done,
            2,
            "its record in the bucket differs from what was launched or confirmed here",
            expected,
            "--accept-record",
        )
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
    refuses(done, 1, "differs from what was launched", "nodes: 8, not 1", "max_hours: 720")
    assert len(account.requests("CreateFleet")) == 1


def test_another_computer_asks_before_it_starts_machines(
    account: Cloud, launched: RunRecord, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    say(launched, state="finished")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    done = ragcun("aws", "watch", "isotropy")
    refuses(done, 2, "no answer was given")
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
    refuses(ragcun("aws", "launch", "--instance", "g5.xlarge", "--accept-record"), 2, "--accept-record needs --resume")


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


def test_the_copy_is_the_users_own(launched: RunRecord) -> None:
    path = kept.kept_file(ACCOUNT, BUCKET, "isotropy")
    assert path.is_file()
    copy = kept.kept_record(ACCOUNT, BUCKET, "isotropy")
    assert copy == launched.launch()
    path.write_text("{}")
    with pytest.raises(UsageError, match=r"cannot be read: .*isotropy\.json: not a launch record"):
        kept.kept_record(ACCOUNT, BUCKET, "isotropy")
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


def test_a_copy_that_is_damaged_is_no_missing_copy(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    """Else whoever damages it, or a full disk, would let the record in the bucket count alone."""
    path = kept.kept_file(ACCOUNT, BUCKET, "isotropy")
    path.write_text("{damaged")
    say(launched, state="interrupted")
    end_machines()
    rewrite(launched, DEARER["eight times p4d, for a month"][0])
    for command in (("watch", "isotropy", "--yes"), ("launch", "--run", "isotropy", "--resume", "--yes")):
        refuses(ragcun("aws", *command), 2, "cannot be read", f"Remove {path}".split("/state")[0])
    assert len(account.requests("CreateFleet")) == 1


def test_where_no_copy_can_be_kept_nothing_is_launched(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    refuses(ragcun(*launch), 4, "the launch's record cannot be kept there", "XDG_STATE_HOME")
    assert leftovers(account) == set()


def test_one_broken_record_does_not_hide_the_others(
    account: Cloud, launched: RunRecord, launch: list[str | Path], ragcun: RunCommand
) -> None:
    assert ragcun(*launch, "--run", "second").exit_code == 0
    put(launched, "launch.json", b"{")
    done = ragcun("aws", "status")
    assert done.exit_code == 1
    assert "second" in done.stdout
    assert "isotropy: s3://" in done.stderr


def test_what_the_machine_makes_of_its_state_stops_no_command(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    """An object in cold storage cannot be read, one of 20 MB is not read whole."""
    s3 = boto3.client("s3", region_name=HOME)
    key = {"Bucket": BUCKET, "Key": f"{launched.prefix}status.json"}
    for more in ({"StorageClass": "GLACIER", "Body": b"{}"}, {"Body": b'{"state": "' + b"x" * 20_000_000}):
        s3.put_object(**key, **more)
        done = ragcun("aws", "status", "isotropy")
        assert done.exit_code == 0, done.stderr
        assert "What the machine said cannot be used" in done.stderr
    asked = [each for each in account.requests("GetObject") if each["Key"].endswith("status.json")]
    assert all(each["Range"] == "bytes=0-8388607" for each in asked)
    s3.put_object(**key, StorageClass="GLACIER", Body=b"{}")
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()


def test_a_training_that_cannot_be_read_is_left_out(account: Cloud, launched: RunRecord) -> None:
    trainings = [{"name": "a", "step": None}, {"name": "b", "step": 3}, {"name": "x" * 300}, 7]
    status = parse_status(json.dumps({"state": "running", "attempt": 1, "trainings": trainings}).encode())
    assert not isinstance(status, str)
    assert [each.name for each in status.trainings] == ["b"]
