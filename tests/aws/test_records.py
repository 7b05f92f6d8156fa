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

from ragcun_cli.aws import kept, runs, watch
from ragcun_cli.aws.calls import AwsError
from ragcun_cli.aws.launch_record import LaunchRecord, as_time, now, parse_launch, parse_status
from ragcun_cli.aws.record import Reported, RunRecord, end_of, hours_used
from ragcun_cli.aws.resources import machines
from ragcun_cli.aws.runs import FoundRun, find_run
from ragcun_cli.aws.state_reason import StateReason
from ragcun_cli.errors import DataError, UsageError
from tests.aws.account_contents import leftovers
from tests.aws.cloud import ACCOUNT, HOME, Cloud, refused
from tests.aws.command_answers import no_capacity, refuses, said
from tests.aws.every_command import BUCKET, end_machines, make_older, say
from tests.aws.launch_builders import launch_for
from tests.conftest import RunCommand


@pytest.fixture
def launched(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> RunRecord:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(watch, "SECONDS_TO_SHUT_DOWN", 0.05)
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
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115
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


def test_machines_that_cannot_be_ended_keep_what_ends_them(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    """Their schedule, and the role with which it ends them."""
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    account.before = lambda service, operation: (
        refused("UnauthorizedOperation", operation) if operation == "TerminateInstances" else None
    )
    for command in (("terminate", "isotropy", "--yes"), ("gc", "--delete", "--all", "--yes")):
        done = ragcun("aws", *command)
        assert done.exit_code == 4
        assert "a machine that could not be ended may need it" in said(done)
        assert {"machine us-east-1", "schedule us-east-1", "role ragcun-isotropy-deadline", "instance profile"} <= (
            leftovers(account)
        )
    account.before = lambda service, operation: None
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()


def test_a_launch_whose_machine_cannot_be_ended_keeps_what_ends_it(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    looks = 0

    def after_the_machine(service: str, operation: str) -> Exception | None:
        nonlocal looks
        looks += operation == "CreateSchedule"
        fails = operation == "TerminateInstances" or (looks and operation == "DescribeInstances")
        return refused("UnauthorizedOperation", operation) if fails else None

    account.before = after_the_machine
    done = ragcun(*launch)
    account.before = lambda service, operation: None
    assert done.exit_code == 4
    assert "schedule ragcun-isotropy" in said(done)
    assert {"machine us-east-1", "schedule us-east-1", "role ragcun-isotropy-deadline"} <= leftovers(account)


def test_machines_are_ended_wherever_they_are(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    """The record names another region than the machine's."""
    kept.forget(ACCOUNT, BUCKET, "isotropy")
    rewrite(
        launched,
        lambda launch: (
            launch["wishes"].update(regions=["us-west-2"]),
            launch["attempts"][0].update(region="us-west-2"),
        ),
    )
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()


@pytest.mark.parametrize("by", ["launch", "terminate"])
def test_a_machine_that_ec2_does_not_list_yet_is_ended_by_its_id(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    account.answers["DescribeInstances"] = lambda asked: {"Reservations": []}
    if by == "launch":
        account.before = lambda service, operation: (
            refused("AccessDenied", operation) if operation == "CreateSchedule" else None
        )
        assert ragcun(*launch).exit_code == 4
        account.before = lambda service, operation: None
    else:
        monkeypatch.setattr(runs, "SECONDS_TO_SHOW", 300.0)
        assert ragcun(*launch).exit_code == 0
        assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    del account.answers["DescribeInstances"]
    assert leftovers(account) == set()


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


def test_terminate_needs_no_object_of_the_run(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    launched.store().delete(["launch.json"])
    put(launched, "launch.json.x", b"{}")
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) <= {"objects"}


def test_a_bucket_that_does_not_answer_is_waited_for_and_ends_no_terminate(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    refusals = iter([refused("SlowDown", "ListObjectsV2", 503)])
    looks = 0

    def once(service: str, operation: str) -> Exception | None:
        nonlocal looks
        looks += operation == "ListBuckets"
        return next(refusals, None) if operation == "ListObjectsV2" and looks > 1 else None

    say(launched, state="finished")
    end_machines()
    account.before = once
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 0, done.stderr
    assert "Looking again" in done.stderr
    account.before = lambda service, operation: (
        refused("SlowDown", operation, 503) if operation == "ListObjectsV2" else None
    )
    done = ragcun("aws", "terminate", "isotropy", "--yes")
    assert "Traceback" not in done.stderr
    account.before = lambda service, operation: None
    assert leftovers(account) <= {"objects"}


def test_a_machine_that_says_it_is_over_and_goes_on_is_ended(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    say(launched, state="finished")
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 0, done.stderr
    assert "finished, but its machine has not shut down: ending it" in done.stderr
    assert "machine us-east-1" not in leftovers(account)


def test_hours_that_nobody_saw_count_where_nobody_is_asked(
    account: Cloud, launched: RunRecord, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine spoke in its first minute; whether it ran on for 23 hours, nobody knows."""
    launch = launched.launch()
    assert launch is not None
    started = now() - timedelta(hours=23)
    first = replace(launch.attempts[0], started=started.isoformat(), end=(now() + timedelta(hours=1)).isoformat())
    record = RunRecord(account.aws(), ACCOUNT, BUCKET, HOME, "isotropy")
    status = parse_status(b'{"state": "interrupted", "attempt": 1}')
    assert not isinstance(status, str)
    found = FoundRun(record, launch.with_attempts([first]), Reported(status, started + timedelta(minutes=1)), ())
    monkeypatch.setattr(runs, "SECONDS_TO_SHOW", 300.0)
    assert found.hours() == pytest.approx(0.1)
    assert found.hours_at_most() == pytest.approx(23, abs=0.01)
    with pytest.raises(UsageError, match=r"has used 23\.\d+ of its 23 hours"):
        watch.plan_relaunch(account.aws(), found, {"max_hours": 23.0}, unasked=True)
    _, left = watch.plan_relaunch(account.aws(), found, {"max_hours": 23.0})  # the user is asked, and sees the plan
    assert left == pytest.approx(22.9)
    ended = watch._with_the_end_of_its_attempts(found, unasked=True).attempts[0].ended or ""
    assert as_time(ended) >= now() - timedelta(minutes=1)
    ended = watch._with_the_end_of_its_attempts(found, unasked=False).attempts[0].ended or ""
    assert as_time(ended) == started + timedelta(minutes=6)
    by_ec2 = replace(found, reason=StateReason("Server.X", "", started + timedelta(hours=2)))
    assert by_ec2.hours_at_most() == pytest.approx(2)
    seen = replace(found, seen_alive=started + timedelta(hours=3))
    assert seen.hours_at_most() == pytest.approx(3)


def test_what_was_seen_is_remembered_but_not_what_was_slept_through(
    account: Cloud, launched: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_run(account.aws(), ACCOUNT, "isotropy", HOME, None)
    assert found is not None
    monkeypatch.setattr(watch, "SECONDS_TO_SHOW", 300.0)
    clock = [now()]
    monkeypatch.setattr(watch, "now", lambda: clock[0])
    gone = replace(found, machines=())
    told = replace(gone, reason=StateReason("Server.X", "", clock[0] - timedelta(hours=1)))
    witness = watch._Witness()
    witness.completed(found)
    clock[0] += timedelta(seconds=30)
    assert witness.completed(gone).seen_alive == clock[0] - timedelta(seconds=30)
    clock[0] += timedelta(hours=5)
    assert witness.completed(gone).seen_alive is not None  # its end was seen, however long ago
    slept = watch._Witness()
    slept.completed(found)
    clock[0] += timedelta(hours=5)
    assert slept.completed(gone).seen_alive is None
    assert slept.completed(told).seen_alive == told.reason.when
    assert slept.completed(gone).seen_alive == told.reason.when  # which EC2 has forgotten since
    assert found.last_attempt is not None
    another = replace(gone, launch=gone.launch.with_attempts([found.last_attempt, found.last_attempt]))
    assert slept.completed(another).seen_alive is None


def test_a_machine_that_outlived_its_timers_is_ended(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    make_older(launched, hours=30, end=(now() - timedelta(hours=6)).isoformat())
    say(launched, state="running")
    done = ragcun("aws", "watch", "isotropy")
    assert "its machine has outlived its deadline: ending it" in done.stderr
    assert "machine us-east-1" not in leftovers(account)
    assert done.exit_code == 1


def test_no_capacity_is_no_silent_machine(
    account: Cloud, launched: RunRecord, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_machines()
    answers = iter([no_capacity("InsufficientInstanceCapacity")] * 4)
    account.answers["CreateFleet"] = lambda asked: next(answers, None)

    def finish(service: str, operation: str) -> None:
        if operation == "CreateSchedule":
            say(launched, state="finished", attempt=2)

    account.after = finish
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("no capacity") >= 4


def test_ctrl_c_while_a_region_is_cleaned_up_starts_nothing_in_the_next(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    answers = iter([no_capacity("InsufficientInstanceCapacity")])
    account.answers["CreateFleet"] = lambda asked: next(answers, None)
    account.before = lambda service, operation: KeyboardInterrupt() if operation == "DeleteLaunchTemplate" else None
    done = ragcun(*launch, "--region", "us-east-1,us-west-2")
    account.before = lambda service, operation: None
    assert done.exit_code == 130
    assert len(account.requests("CreateFleet")) == 1
    assert "machine us-west-2" not in leftovers(account)


def test_a_machine_left_in_one_region_stops_the_search_in_others(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    """A fleet gave one of two nodes, and it cannot be ended."""
    answers = iter([{"FleetId": "f", "Errors": [], "Instances": [{"InstanceIds": ["i-0123456789abcdef0"]}]}])
    account.answers["CreateFleet"] = lambda asked: next(answers, None)
    account.before = lambda service, operation: (
        refused("UnauthorizedOperation", operation) if operation == "TerminateInstances" else None
    )
    done = ragcun(*launch, "--nodes", "2", "--region", "us-east-1,us-west-2")
    account.before = lambda service, operation: None
    assert done.exit_code == 4
    assert len(account.requests("CreateFleet")) == 1
    assert "machines that were started there could not be ended" in said(done)
    assert "machine ragcun-isotropy in us-east-1" in said(done)


def test_a_machine_without_its_tag_is_ended_by_its_id(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    ec2 = boto3.client("ec2", region_name=HOME)
    launch = launched.launch()
    assert launch is not None
    ids = list(launch.attempts[0].instances)
    ec2.delete_tags(Resources=ids, Tags=[{"Key": "ragcun:run"}])
    profile = {"Arn": f"arn:aws:iam::{ACCOUNT}:instance-profile/ragcun/ragcun-isotropy", "Id": "x"}
    real = account.aws().pages

    def with_profile(service: str, operation: str, *rest: Any, region: str, key: str) -> Any:
        """moto does not tell a machine's profile."""
        for entry in real(service, operation, *rest, region=region, key=key):
            for each in entry["Instances"] if key == "Reservations" else ():
                each |= {"IamInstanceProfile": profile} if each["InstanceId"] in ids else {}
            yield entry

    account.aws().pages = with_profile  # type: ignore[method-assign]
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()


def test_terminate_ends_no_other_machine_that_a_record_names(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    ec2 = boto3.client("ec2", region_name=HOME)
    image = ec2.describe_images()["Images"][0]["ImageId"]
    yours = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    rewrite(launched, lambda launch: launch["attempts"][0]["instances"].append(yours))
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    (found,) = ec2.describe_instances(InstanceIds=[yours])["Reservations"][0]["Instances"]
    assert found["State"]["Name"] == "running"
    for sent in account.requests("TerminateInstances"):
        assert yours not in sent["InstanceIds"]


def test_a_machine_that_appears_late_is_ended(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    """EC2 knew neither its tag nor its id at first, then lists it."""
    monkeypatch.setattr(machines, "SECONDS_TO_END", 5.0)
    _, attempt = launch_for(cloud, checkout)
    looks = iter([{"Reservations": []}] * 4)
    cloud.answers["DescribeInstances"] = lambda asked: next(looks, None)
    unknown = iter([refused("InvalidInstanceID.NotFound", "TerminateInstances", 400)])
    cloud.before = lambda service, operation: next(unknown, None) if operation == "TerminateInstances" else None
    ended = machines.end_machines(cloud.aws(), "isotropy", HOME, unlisted=attempt.instances, patience=5.0)
    assert ended == list(attempt.instances)
    del cloud.answers["DescribeInstances"]
    assert "machine us-east-1" not in leftovers(cloud)


def test_a_bucket_that_is_denied_hides_neither_runs_nor_machines(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    boto3.client("s3", region_name=HOME).create_bucket(Bucket=f"ragcun-{ACCOUNT}-other")

    def denied(service: str, operation: str) -> Exception | None:
        is_other = operation == "HeadBucket" and account.sent[-1][2]["Bucket"].endswith("other")
        return refused("403", operation) if is_other else None

    account.before = denied
    assert ragcun("aws", "status", "isotropy").exit_code == 0
    account.before = lambda service, operation: refused("403", operation) if operation == "HeadBucket" else None
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    account.before = lambda service, operation: None
    assert leftovers(account) == {"objects"}


def test_a_machine_without_any_part_is_still_found(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    store = launched.store()
    store.delete(store.keys(""))
    iam = boto3.client("iam", region_name=HOME)
    both = {"InstanceProfileName": "ragcun-isotropy", "RoleName": "ragcun-isotropy"}
    iam.remove_role_from_instance_profile(**both)
    iam.delete_instance_profile(InstanceProfileName="ragcun-isotropy")
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()


def test_a_region_that_is_forbidden_does_not_stop_terminate(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    """An organisation's policy denies it for good, and the record cannot be used."""
    put(launched, "launch.json", b"{")
    kept.forget(ACCOUNT, BUCKET, "isotropy")
    real = account.aws().pages

    def pages(service: str, operation: str, *rest: Any, region: str, key: str) -> Any:
        if region == "us-west-2":
            raise AwsError("denied by an organisation's policy", "", "UnauthorizedOperation")
        return real(service, operation, *rest, region=region, key=key)

    account.aws().pages = pages  # type: ignore[method-assign]
    done = ragcun("aws", "terminate", "isotropy", "--yes")
    assert done.exit_code == 0, done.stderr
    assert "could not be looked for in us-west-2" in said(done)
    assert leftovers(account) == set()
    assert ragcun("aws", "gc", "--delete", "--yes", "--region", HOME).exit_code == 0


def test_an_attempt_whose_machine_runs_on_stays_recorded(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    say(launched, state="interrupted")
    end_machines()
    account.before = lambda service, operation: (
        refused("AccessDenied", operation) if operation in ("CreateSchedule", "TerminateInstances") else None
    )
    done = ragcun("aws", "launch", "--run", "isotropy", "--resume", "--yes")
    account.before = lambda service, operation: None
    assert done.exit_code == 4
    assert "ragcun aws terminate isotropy --keep-bucket" in said(done)
    launch = launched.launch()
    assert launch is not None
    assert len(launch.attempts) == 2
    assert "machine us-east-1" in leftovers(account)


def test_ec2s_time_of_an_end_is_read(account: Cloud, launched: RunRecord) -> None:
    end_machines(when="2026-11-28 08:15:30")
    found = find_run(account.aws(), ACCOUNT, "isotropy", HOME, None)
    assert found is not None
    assert found.reason.when is not None
    assert found.reason.when.isoformat() == "2026-11-28T08:15:30+00:00"


def test_a_machine_of_which_ec2_knows_nothing_any_more_is_not_replaced_unasked(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    """EC2 forgets a machine, and that its owner ended it, within an hour."""
    end_machines()
    account.answers["DescribeInstances"] = lambda asked: {"Reservations": []}
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 1
    assert "EC2 no longer does" in said(done)
    assert len(account.requests("CreateFleet")) == 1


def test_a_machine_that_was_rolled_back_does_not_speak_for_the_run(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    say(launched, state="failed", instance="i-0")
    assert json.loads(ragcun("aws", "status", "isotropy", "--json").stdout)["state"] == "starting"


def test_a_relaunch_that_fails_at_its_last_step_is_taken_back(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    """Its machines were recorded, but the answer was lost."""
    say(launched, state="interrupted")
    end_machines()
    before = launched.launch()
    writes = 0

    def lost(service: str, operation: str) -> BaseException | None:
        nonlocal writes
        writes += operation == "PutObject"
        return KeyboardInterrupt() if writes == 2 and operation == "PutObject" else None

    account.after = lost
    done = ragcun("aws", "launch", "--run", "isotropy", "--resume", "--yes")
    account.after = lambda service, operation: None
    assert done.exit_code == 130
    assert "These remain" not in done.stderr
    assert launched.launch() == before
    assert "machine us-east-1" not in leftovers(account)
    assert ragcun("aws", "launch", "--run", "isotropy", "--resume", "--yes").exit_code == 0


def test_a_training_that_cannot_be_read_is_left_out(account: Cloud, launched: RunRecord) -> None:
    trainings = [{"name": "a", "step": None}, {"name": "b", "step": 3}, {"name": "x" * 300}, 7]
    status = parse_status(json.dumps({"state": "running", "attempt": 1, "trainings": trainings}).encode())
    assert not isinstance(status, str)
    assert [each.name for each in status.trainings] == ["b"]
