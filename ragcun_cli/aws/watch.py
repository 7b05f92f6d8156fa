"""Follow a run from here: print its log as it grows, and start a new machine whenever one was reclaimed."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.code import CodeArchive
from ragcun_cli.aws.kept import require_as_kept
from ragcun_cli.aws.launch import LaunchFailed, Say, continue_run
from ragcun_cli.aws.launch_record import FINISHED, Attempt, LaunchRecord, as_time, now
from ragcun_cli.aws.plan import LaunchPlan
from ragcun_cli.aws.planning import make_plan
from ragcun_cli.aws.prices import MINUTES_AFTER
from ragcun_cli.aws.record import end_of
from ragcun_cli.aws.resources.machines import end_machines
from ragcun_cli.aws.runs import SECONDS_TO_SHOW, FoundRun, job_of
from ragcun_cli.errors import EnvironmentUnfit, RagcunError, UsageError

POLL_SECONDS = 30.0  # each look is some ten requests in every region, and a relaunch takes minutes anyway
SECONDS_BETWEEN_LOG_LOOKS = 5.0
MINUTES_WITHOUT_CAPACITY = 15.0  # before machines are requested again
SECONDS_TO_SHUT_DOWN = 900.0  # for a machine whose run is over
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


def plan_relaunch(
    aws: Aws, found: FoundRun, changes: dict[str, Any], unasked: bool = False
) -> tuple[LaunchPlan, float]:
    """Plan another machine for a run; return the plan and the hours left.

    changes: to the run's options. unasked: whether nobody is asked, so that hours that may have been used count.

    Raises:
        UsageError: if the run is finished, is still running, or has used its hours.
    """
    state = found.state()
    if state in ("running", "starting"):
        raise UsageError(f"run {found.run} already has a machine", f"Check it: ragcun aws status {found.run}")
    if state == FINISHED:
        raise UsageError(f"run {found.run} is finished", f"Fetch its results: ragcun aws fetch {found.run}")
    wishes = dataclasses.replace(found.launch.wishes, **changes)
    used = found.hours_at_most() if unasked else found.hours()
    left = wishes.max_hours - used
    if left < LEAST_HOURS:
        raise UsageError(
            f"run {found.run} has used {used:.2f} of its {wishes.max_hours:g} hours",
            "Give it more: --resume --max-hours HOURS (in total)",
        )
    return make_plan(aws, wishes, job_of(found)), left


def relaunch(
    aws: Aws,
    found: FoundRun,
    say: Say,
    changes: dict[str, Any],
    archive: CodeArchive | None = None,
    unasked: bool = False,
) -> Attempt:
    """Start another machine for a run whose last one is gone or about to go. archive: new code, if any; unasked: as in
    `plan_relaunch`.

    Raises:
        UsageError: as `plan_relaunch`, or if the record is not what this computer's user gave or confirmed.
        LaunchFailed: as `continue_run`.
    """
    require_as_kept(found.launch, found.record.bucket)
    plan, left = plan_relaunch(aws, found, changes, unasked)
    # A machine still shutting down, or unaware that the others ended, must not write alongside the next one. Match by
    # id, so that a machine started meanwhile by another command is spared.
    earlier = {instance for attempt in found.launch.attempts for instance in attempt.instances}
    for region in found.regions:
        end_machines(aws, found.run, region, only=earlier | {machine.id for machine in found.machines})
    launch = _with_the_end_of_its_attempts(found, unasked)
    code = launch.code if archive is None else archive.identity()
    launch = dataclasses.replace(launch, wishes=plan.wishes, code=code, terminated=None)
    return continue_run(aws, plan, found.record, found.launch, launch, left, archive, say)


def end_all(aws: Aws, found: FoundRun) -> None:
    """End the run's machines.

    Raises:
        AwsError: if AWS refuses.
    """
    for region in found.regions:
        end_machines(aws, found.run, region)


def _with_the_end_of_its_attempts(found: FoundRun, unasked: bool) -> LaunchRecord:
    """Return the record with the last attempt's end, which what the next machine says will not contain."""
    attempts = list(found.launch.attempts)
    if attempts and attempts[-1].ended is None:
        ended = end_of(attempts[-1], found.witnessed_sign() if unasked else found.last_sign())
        attempts[-1] = dataclasses.replace(attempts[-1], ended=ended.isoformat())
    return found.launch.with_attempts(attempts)


def watch(
    look: Callable[[], FoundRun],
    start: Callable[[FoundRun], Attempt],
    end: Callable[[FoundRun], object],
    on_look: Callable[[FoundRun], None],
    say: Say,
) -> FoundRun:
    """Watch a run until it is over, and start another machine whenever it is interrupted.

    look: returns the run's current state. start: starts another machine. end: ends machines that are still there after
    the run is over. on_look: shows the run. Temporary problems, such as a lost network, expired credentials or no
    capacity, are reported and retried. A machine that its owner ended is not replaced.

    Raises:
        RunFailed: if no other machine may start: the hours are used up, the record asks for something else than was
            confirmed, or machines end without reporting.
    """
    silent: set[int] = set()  # attempts in a row that ended without reporting
    witness, over_since = _Witness(), None
    while True:
        try:
            found = witness.completed(look())
        except AwsError as error:
            say(f"{error.message} {error.hint} Looking again in {POLL_SECONDS:.0f} s.")
            time.sleep(POLL_SECONDS)
            continue
        on_look(found)
        if found.machines and _is_overdue(found):
            say("its machine has outlived its deadline: ending it")
            _try_to_end(found, end, say)
        elif found.may_go_on():
            silent = set() if found.status is not None else silent | {len(found.launch.attempts)}
            if len(silent) > MOST_SILENT:
                raise RunFailed(
                    f"run {found.run}: {len(silent)} machines in a row have ended without reporting",
                    f"Look at the EC2 console, or start one yourself: ragcun aws launch --run {found.run} --resume",
                )
            _start_another(found, start, say)
        elif found.state() not in ("running", "starting"):
            over_since = over_since or time.monotonic()
            if not found.machines:
                return found
            if time.monotonic() - over_since > SECONDS_TO_SHUT_DOWN:
                say(f"{found.state()}, but its machine has not shut down: ending it")
                _try_to_end(found, end, say)
        time.sleep(POLL_SECONDS)


class _Witness:
    """Remembers when an attempt's machines were last known to be there: seen by this process, or told by EC2, which
    forgets it within an hour."""

    def __init__(self) -> None:
        self._attempt = 0
        self._seen: datetime.datetime | None = None
        self._were_there = False

    def completed(self, found: FoundRun) -> FoundRun:
        """Return what was found with what is remembered of its last attempt."""
        if self._attempt != len(found.launch.attempts):
            self._attempt, self._seen, self._were_there = len(found.launch.attempts), None, False
        if found.machines:
            self._seen, self._were_there = now(), True
        elif self._were_there:
            self._were_there = False
            # After a long gap, such as a laptop's sleep, nobody saw the end.
            if self._seen is not None and (now() - self._seen).total_seconds() > SECONDS_TO_SHOW:
                self._seen = None
        if not found.machines and self._seen is None:
            self._seen = found.reason.when
        return dataclasses.replace(found, seen_alive=self._seen)


def _is_overdue(found: FoundRun) -> bool:
    """Return whether the machines are there although every timer should have ended them."""
    last = found.last_attempt
    if last is None:
        return False
    late = datetime.timedelta(minutes=MINUTES_AFTER, seconds=SECONDS_TO_SHUT_DOWN)
    return now() > as_time(last.end) + late


def _try_to_end(found: FoundRun, end: Callable[[FoundRun], object], say: Say) -> None:
    try:
        end(found)
    except AwsError as error:
        say(f"{error.message} {error.hint} Trying again.")


def _start_another(found: FoundRun, start: Callable[[FoundRun], Attempt], say: Say) -> None:
    say(f"{found.state()}{f': {found.why()}' if found.why() else ''}: starting another machine")
    try:
        attempt = start(found)
    except UsageError as error:
        raise RunFailed(error.message, error.hint) from None
    except (LaunchFailed, EnvironmentUnfit) as error:
        if isinstance(error, LaunchFailed) and not error.may_be_repeated:
            raise
        say(f"{error.message}\nNext attempt in {MINUTES_WITHOUT_CAPACITY:g} minutes.")
        time.sleep(MINUTES_WITHOUT_CAPACITY * 60)
        return
    say(f"attempt {attempt.number}: {', '.join(attempt.instances)} in {attempt.zone or attempt.region}")


class RunFailed(RagcunError):
    """A run that ended without finishing."""

    title = "aws"


def require_finished(found: FoundRun) -> None:
    """Raise an error unless the run finished.

    Raises:
        RunFailed: with the reason that its machine gave, or EC2.
    """
    if found.state() != FINISHED:
        stage = found.status.stage if found.status is not None else ""
        raise RunFailed(
            f"run {found.run}: {found.state()} in stage {stage or 'unknown'}: {found.why() or 'no reason was given'}",
            f"Its log: ragcun aws logs {found.run}. What it saved: ragcun aws fetch {found.run}. "
            f"To go on: ragcun aws launch --run {found.run} --resume",
        )
