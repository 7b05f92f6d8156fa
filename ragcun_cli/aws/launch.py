"""Start a run: create everything it needs, and roll it back if no machine starts.

bucket, objects, log, roles     once per run
group, template, fleet, schedules, in the first region that has the machines      once per attempt
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import partial
from typing import Any

from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.code import CodeArchive
from ragcun_cli.aws.creation import NoMachine, create_budget, create_log, create_roles, require_no_parts, start_in
from ragcun_cli.aws.plan import LaunchPlan, require_launchable
from ragcun_cli.aws.record import Attempt, RunRecord, now
from ragcun_cli.aws.rollback import Orphan, Rollback
from ragcun_cli.aws.storage import claim_run, describe_launch, ensure_bucket, upload_run
from ragcun_cli.errors import ExitCode, RagcunError

Say = Callable[[str], None]


class LaunchFailed(RagcunError):
    """A launch that failed, with what it left behind, if anything."""

    title = "aws"

    def __init__(self, cause: RagcunError, left: list[Orphan]) -> None:
        listed = "\n".join(f"  {each.sentence()}" for each in left)
        after = f"These remain:\n{listed}" if left else "Everything that this launch created has been removed."
        super().__init__(f"{cause.message}\n{after}", cause.hint)
        self.exit_code = cause.exit_code
        self.is_no_machine = isinstance(cause, NoMachine) and not left


class StoppedLaunch(LaunchFailed):
    """A launch that Ctrl-C stopped."""

    def __init__(self, left: list[Orphan]) -> None:
        super().__init__(RagcunError("stopped by Ctrl-C"), left)
        self.exit_code = ExitCode.CTRL_C


def launch_run(aws: Aws, plan: LaunchPlan, archive: CodeArchive, say: Say) -> Attempt:
    """Start a new run.

    Raises:
        LaunchFailed: for any reason; its message says what remains, if anything.
    """
    require_launchable(plan)
    record = RunRecord(aws, plan.account, plan.bucket, plan.home, plan.run)
    attempt = _begin(1, plan.wishes.max_hours)

    def make(rollback: Rollback) -> Attempt:
        require_no_parts(aws, plan)
        ensure_bucket(aws, plan, rollback)
        launch = describe_launch(plan, archive) | {"attempts": [attempt.as_json()]}
        claim_run(record, launch, rollback)
        say(f"uploading code and recipes to {record.address}")
        upload_run(record, plan, archive)
        say("creating roles and log group")
        create_log(aws, plan, rollback)
        create_roles(aws, plan, rollback)
        create_budget(aws, plan, rollback)
        return _start(aws, plan, record, launch, attempt, plan.wishes.max_hours, rollback, say)

    return _or_undone(make)


def continue_run(
    aws: Aws,
    plan: LaunchPlan,
    record: RunRecord,
    before: dict[str, Any],
    launch: dict[str, Any],
    hours: float,
    archive: CodeArchive | None,
    say: Say,
) -> Attempt:
    """Start another machine for an interrupted run. before: launch.json as it was read; launch: its new content;
    hours: what is left of --max-hours; archive: new code, if any.

    Raises:
        LaunchFailed: as `launch_run`; what earlier attempts saved is kept.
        UsageError: if another command is starting one at the same time.
    """
    require_launchable(plan)
    attempt = _begin(len(launch["attempts"]) + 1, hours)
    begun = {**launch, "attempts": [*launch["attempts"], attempt.as_json()]}
    record.replace_launch(before, begun)

    def make(rollback: Rollback) -> Attempt:
        rollback.add(
            "the attempt in launch.json", f"ragcun aws status {plan.run}", partial(_forget, record, begun, before)
        )
        if archive is not None:
            record.write(archive.key, archive.content)
        # An earlier attempt may have created these; all attempts share them, so they are kept.
        create_log(aws, plan, Rollback())
        create_roles(aws, plan, Rollback())
        create_budget(aws, plan, Rollback())
        return _start(aws, plan, record, begun, attempt, hours, rollback, say)

    return _or_undone(make)


def _begin(number: int, hours: float) -> Attempt:
    started = now()
    end = started + datetime.timedelta(hours=hours)
    return Attempt(number, "", "", (), None, started.isoformat(), end.isoformat())


def _forget(record: RunRecord, begun: dict[str, Any], before: dict[str, Any]) -> None:
    record.replace_launch(begun, before)


def _or_undone(make: Callable[[Rollback], Attempt]) -> Attempt:
    rollback = Rollback()
    try:
        return make(rollback)
    except RagcunError as error:
        raise LaunchFailed(error, rollback.run()) from None
    except KeyboardInterrupt:
        raise StoppedLaunch(rollback.run()) from None
    except BaseException as error:  # a bug must not leave a machine running either
        raise LaunchFailed(RagcunError(f"internal error: {error!r}"), rollback.run()) from error


def _start(
    aws: Aws,
    plan: LaunchPlan,
    record: RunRecord,
    launch: dict[str, Any],
    attempt: Attempt,
    hours: float,
    rollback: Rollback,
    say: Say,
) -> Attempt:
    """Start in the first usable region that has the machines. launch: launch.json with this attempt last."""
    reasons = []
    for region in plan.usable():
        say(f"requesting {plan.wishes.nodes} x {plan.instance.name} in {region.name}")
        here = Rollback()
        try:
            started = start_in(aws, plan, region, attempt, launch["code"]["sha256"], hours, here)
        except NoMachine as error:
            reasons.append(error.message)
            say(error.message)
            for left in here.run():
                rollback.add(left.what, left.cure, partial(_still_there, left))
            continue
        except BaseException:
            rollback.extend(here)
            raise
        rollback.extend(here)
        record.write_json("launch.json", {**launch, "attempts": [*launch["attempts"][:-1], started.as_json()]})
        return started
    market = "on demand" if plan.wishes.on_demand else "as spot"
    raise NoMachine(
        f"no {plan.instance.name} is available {market}:\n" + "\n".join(f"  {each}" for each in reasons),
        "Try more regions (--region A --region B), another --instance, "
        + ("or again later." if plan.wishes.on_demand else "--on-demand, or again later."),
    )


def _still_there(left: Orphan) -> None:
    raise AwsError(left.why)
