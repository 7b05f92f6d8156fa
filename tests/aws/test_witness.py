"""What counts as an attempt's hours and end: what EC2, S3 or this computer saw, not what a machine says."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from ragcun_cli.aws import kept, runs, watch
from ragcun_cli.aws.launch_record import as_time, now, parse_status
from ragcun_cli.aws.record import Reported, RunRecord, end_of, hours_used
from ragcun_cli.aws.runs import FoundRun, find_run
from ragcun_cli.aws.state_reason import StateReason
from ragcun_cli.errors import UsageError
from tests.aws.cloud import ACCOUNT, HOME, Cloud
from tests.aws.command_answers import no_capacity, refuses, said
from tests.aws.every_command import BUCKET, end_machines, say
from tests.conftest import RunCommand


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
