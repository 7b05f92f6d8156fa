"""Follow a run from here: print its log as it grows, and start a new machine whenever one was reclaimed."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.code import CodeArchive
from ragcun_cli.aws.launch import LaunchFailed, Say, continue_run
from ragcun_cli.aws.machines import end_machines
from ragcun_cli.aws.plan import LaunchPlan, make_plan
from ragcun_cli.aws.record import FINISHED, TERMINATED, Attempt, as_time, hours_used
from ragcun_cli.aws.runs import FoundRun, job_of, wishes_of
from ragcun_cli.errors import EnvironmentUnfit, RagcunError, UsageError

POLL_SECONDS = 30.0  # each look is some ten requests in every region, and a relaunch takes minutes anyway
SECONDS_BETWEEN_LOG_LOOKS = 5.0
MINUTES_WITHOUT_CAPACITY = 15.0  # before machines are requested again
LEAST_HOURS = 0.25  # less would run out before anything is installed
MOST_SILENT = 2  # machines in a row that end without reporting: a third would do the same
NO_STREAM = ("ResourceNotFoundException",)


def log_lines(aws: Aws, found: FoundRun, since: int, seen: set[str]) -> tuple[list[str], int]:
    """Return new log lines, oldest first, and the newest one's time in milliseconds. seen: ids of known events."""
    request: dict[str, Any] = {"logGroupName": names.log_group_name(found.run), "startTime": since}
    lines, newest = [], since
    while True:
        answer = aws.ask("logs", "filter_log_events", request, region=found.record.region, absent=NO_STREAM) or {}
        for event in answer.get("events", []):
            newest = max(newest, event["timestamp"])
            if event["eventId"] not in seen:
                seen.add(event["eventId"])
                lines.append(event["message"])
        token = answer.get("nextToken")
        if not token:
            return lines, newest
        request = {**request, "nextToken": token}


def follow_log(aws: Aws, look: Callable[[], FoundRun]) -> Iterator[str]:
    """Yield log lines as they arrive, until the run is over."""
    since, seen = 0, set[str]()
    while True:
        found = look()
        lines, since = log_lines(aws, found, since, seen)
        yield from lines
        if found.state() not in ("starting", "running") and not lines:
            return
        time.sleep(SECONDS_BETWEEN_LOG_LOOKS)


def plan_relaunch(aws: Aws, found: FoundRun, changes: dict[str, Any]) -> tuple[LaunchPlan, float]:
    """Plan another machine for a run; return the plan and the hours left. changes: to the run's options.

    Raises:
        UsageError: if the run is finished, is still running, or has used its hours.
    """
    state = found.state()
    if state in ("running", "starting"):
        raise UsageError(f"run {found.run} already has a machine", f"Check it: ragcun aws status {found.run}")
    if state == FINISHED:
        raise UsageError(f"run {found.run} is finished", f"Fetch its results: ragcun aws fetch {found.run}")
    wishes = wishes_of({**found.launch, "wishes": {**found.launch["wishes"], **changes}})
    left = wishes.max_hours - found.hours()
    if left < LEAST_HOURS:
        raise UsageError(
            f"run {found.run} has used {found.hours():.2f} of its {wishes.max_hours:g} hours",
            "Give it more: --resume --max-hours HOURS (in total)",
        )
    return make_plan(aws, wishes, job_of(found)), left


def relaunch(
    aws: Aws, found: FoundRun, say: Say, changes: dict[str, Any], archive: CodeArchive | None = None
) -> Attempt:
    """Start another machine for a run whose last one is gone or about to go. archive: new code, if any.

    Raises:
        UsageError: as `plan_relaunch`.
        LaunchFailed: as `continue_run`.
    """
    plan, left = plan_relaunch(aws, found, changes)
    # A machine still shutting down, or unaware that the others ended, must not write alongside the next one. Match by
    # id, so that a machine started meanwhile by another command is spared.
    earlier = {instance for attempt in found.launch["attempts"] for instance in attempt["instances"]}
    for region in found.regions:
        end_machines(aws, found.run, region, only=earlier | {machine.id for machine in found.machines})
    launch = _with_the_end_of_its_attempts(found) | {"wishes": {**found.launch["wishes"], **changes}}
    launch.pop(TERMINATED, None)
    if archive is not None:
        launch["code"] = archive.as_json()
    return continue_run(aws, plan, found.record, found.launch, launch, left, archive, say)


def _with_the_end_of_its_attempts(found: FoundRun) -> dict[str, Any]:
    """Return launch.json with the last attempt's end, which the next machine's status.json will not contain."""
    attempts = list(found.launch["attempts"])
    if attempts and "ended" not in attempts[-1]:
        hours = hours_used(attempts[-1:], found.status, is_alive=False)
        ended = as_time(attempts[-1]["started"]) + datetime.timedelta(hours=hours)
        attempts[-1] = {**attempts[-1], "ended": ended.isoformat()}
    return {**found.launch, "attempts": attempts}


def watch(
    look: Callable[[], FoundRun], start: Callable[[FoundRun], Attempt], on_look: Callable[[FoundRun], None], say: Say
) -> FoundRun:
    """Watch a run until it is over, and start another machine whenever it is interrupted.

    look: returns the run's current state. start: starts another machine. on_look: shows the run. Temporary problems,
    such as a lost network, expired credentials or no capacity, are reported and retried.

    Raises:
        RunFailed: if no other machine may start: the hours are used up, or machines end without reporting.
    """
    silent = 0
    while True:
        try:
            found = look()
        except AwsError as error:
            say(f"{error.message} {error.hint} Looking again in {POLL_SECONDS:.0f} s.")
            time.sleep(POLL_SECONDS)
            continue
        on_look(found)
        if found.may_go_on():
            silent = 0 if _has_spoken(found) else silent + 1
            if silent > MOST_SILENT:
                raise RunFailed(
                    f"run {found.run}: {silent} machines in a row have ended without reporting",
                    f"Look at the EC2 console, or start one yourself: ragcun aws launch --run {found.run} --resume",
                )
            _start_another(found, start, say)
        elif found.state() not in ("running", "starting"):
            return found
        time.sleep(POLL_SECONDS)


def _has_spoken(found: FoundRun) -> bool:
    return found.last_attempt is not None and found.status.get("attempt") == found.last_attempt["number"]


def _start_another(found: FoundRun, start: Callable[[FoundRun], Attempt], say: Say) -> None:
    say(f"{found.state()}: starting another machine")
    try:
        attempt = start(found)
        say(f"attempt {attempt.number}: {', '.join(attempt.instances)} in {attempt.zone or attempt.region}")
    except UsageError as error:
        raise RunFailed(error.message, error.hint) from None
    except (LaunchFailed, EnvironmentUnfit) as error:
        if isinstance(error, LaunchFailed) and not error.is_no_machine:
            raise
        say(f"{error.message}\nNext attempt in {MINUTES_WITHOUT_CAPACITY:g} minutes.")
        time.sleep(MINUTES_WITHOUT_CAPACITY * 60)


class RunFailed(RagcunError):
    """A run that ended without finishing."""

    title = "aws"


def require_finished(found: FoundRun) -> None:
    """Raise an error unless the run finished.

    Raises:
        RunFailed: with the reason that its machine gave.
    """
    if found.state() != FINISHED:
        status = found.status
        raise RunFailed(
            f"run {found.run}: {found.state()} in stage {status.get('stage', 'unknown')}: "
            f"{status.get('reason') or 'no reason was given'}",
            f"Its log: ragcun aws logs {found.run}. What it saved: ragcun aws fetch {found.run}",
        )
