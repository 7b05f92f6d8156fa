"""Starting a run: everything that it needs is made, and taken back if the machine does not come.

bucket, objects, log, roles     once for a run
group, template, fleet, schedules, in the first region that has the machines      once for each attempt
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import partial
from typing import Any

from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.code import CodeArchive
from ragcun_cli.aws.making import NoMachine, make_budget, make_log, make_roles, require_no_parts, start_in
from ragcun_cli.aws.plan import LaunchPlan, require_launchable
from ragcun_cli.aws.record import Attempt, RunRecord, now
from ragcun_cli.aws.storage import claim_run, describe_launch, ensure_bucket, upload_run
from ragcun_cli.aws.undo import Orphan, Undo
from ragcun_cli.errors import ExitCode, RagcunError

Say = Callable[[str], None]


class LaunchFailed(RagcunError):
    """A launch that did not work, with what it left behind, if anything."""

    title = "aws"

    def __init__(self, cause: RagcunError, left: list[Orphan]) -> None:
        listed = "\n".join(f"  {each.sentence()}" for each in left)
        after = f"These remain:\n{listed}" if left else "Everything that this launch had made is removed again."
        super().__init__(f"{cause.message}\n{after}", cause.hint)
        self.exit_code = cause.exit_code
        self.is_no_machine = isinstance(cause, NoMachine) and not left


class StoppedLaunch(LaunchFailed):
    """After Ctrl-C."""

    def __init__(self, left: list[Orphan]) -> None:
        super().__init__(RagcunError("stopped by Ctrl-C"), left)
        self.exit_code = ExitCode.CTRL_C


def launch_run(aws: Aws, plan: LaunchPlan, archive: CodeArchive, say: Say) -> Attempt:
    """Begin a new run.

    Raises:
        LaunchFailed: for whatever reason; its message says what remains, if anything does.
    """
    require_launchable(plan)
    record = RunRecord(aws, plan.account, plan.bucket, plan.home, plan.run)
    attempt = _begin(1, plan.wishes.max_hours)

    def make(undo: Undo) -> Attempt:
        require_no_parts(aws, plan)
        ensure_bucket(aws, plan, undo)
        launch = describe_launch(plan, archive) | {"attempts": [attempt.as_json()]}
        claim_run(record, launch, undo)
        say(f"uploading code and recipes to {record.address}")
        upload_run(record, plan, archive)
        say("making roles and log")
        make_log(aws, plan, undo)
        make_roles(aws, plan, undo)
        make_budget(aws, plan, undo)
        return _start(aws, plan, record, launch, attempt, plan.wishes.max_hours, undo, say)

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
    """Start another machine for a run that was interrupted. before: launch.json as it was read, launch: as it is to be;
    hours: what is left of --max-hours; archive: other code than before, if any.

    Raises:
        LaunchFailed: as `launch_run`; what earlier attempts have saved stays.
        UsageError: if another command starts one just now.
    """
    require_launchable(plan)
    attempt = _begin(len(launch["attempts"]) + 1, hours)
    begun = {**launch, "attempts": [*launch["attempts"], attempt.as_json()]}
    record.replace_launch(before, begun)

    def make(undo: Undo) -> Attempt:
        undo.add("the attempt in launch.json", f"ragcun aws status {plan.run}", partial(_forget, record, begun, before))
        if archive is not None:
            record.write(archive.key, archive.content)
        # An earlier attempt may have made these; they are the same for all, and stay.
        make_log(aws, plan, Undo())
        make_roles(aws, plan, Undo())
        make_budget(aws, plan, Undo())
        return _start(aws, plan, record, begun, attempt, hours, undo, say)

    return _or_undone(make)


def _begin(number: int, hours: float) -> Attempt:
    started = now()
    end = started + datetime.timedelta(hours=hours)
    return Attempt(number, "", "", (), None, started.isoformat(), end.isoformat())


def _forget(record: RunRecord, begun: dict[str, Any], before: dict[str, Any]) -> None:
    record.replace_launch(begun, before)


def _or_undone(make: Callable[[Undo], Attempt]) -> Attempt:
    undo = Undo()
    try:
        return make(undo)
    except RagcunError as error:
        raise LaunchFailed(error, undo.run()) from None
    except KeyboardInterrupt:
        raise StoppedLaunch(undo.run()) from None
    except BaseException as error:  # a defect of ours must not leave a machine running either
        raise LaunchFailed(RagcunError(f"defect: {error!r}"), undo.run()) from error


def _start(
    aws: Aws,
    plan: LaunchPlan,
    record: RunRecord,
    launch: dict[str, Any],
    attempt: Attempt,
    hours: float,
    undo: Undo,
    say: Say,
) -> Attempt:
    """In the first usable region that has the machines. launch: with this attempt as its last."""
    reasons = []
    for region in plan.usable():
        say(f"asking for {plan.wishes.nodes} x {plan.instance.name} in {region.name}")
        here = Undo()
        try:
            started = start_in(aws, plan, region, attempt, launch["code"]["sha256"], hours, here)
        except NoMachine as error:
            reasons.append(error.message)
            say(error.message)
            for left in here.run():
                undo.add(left.what, left.cure, partial(_still_there, left))
            continue
        except BaseException:
            undo.extend(here)
            raise
        undo.extend(here)
        record.write_json("launch.json", {**launch, "attempts": [*launch["attempts"][:-1], started.as_json()]})
        return started
    market = "on demand" if plan.wishes.on_demand else "as spot"
    raise NoMachine(
        f"no {plan.instance.name} is available {market}:\n" + "\n".join(f"  {each}" for each in reasons),
        "Try more regions (--region A --region B), another --instance, "
        + ("later again." if plan.wishes.on_demand else "--on-demand, or later again."),
    )


def _still_there(left: Orphan) -> None:
    raise AwsError(left.why)
