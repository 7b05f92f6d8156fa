"""Start a run: create everything it needs, and roll it back if no machine starts.

bucket, objects, log, roles     once per run
group, template, fleet, schedules, in the first region that has the machines      once per attempt
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import uuid
from collections.abc import Callable
from functools import partial

from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.code import CodeArchive
from ragcun_cli.aws.kept import keep, require_writable
from ragcun_cli.aws.launch_record import FORMAT, Attempt, LaunchRecord, now
from ragcun_cli.aws.plan import LaunchPlan, RegionPlan, require_launchable
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.aws.resources import table
from ragcun_cli.aws.resources.bucket import claim_run, ensure_bucket, release_run, upload_run, uploads_of
from ragcun_cli.aws.resources.iam import profile_exists
from ragcun_cli.aws.resources.kind import Making, Where
from ragcun_cli.aws.resources.machines import NoMachine, find_machines
from ragcun_cli.aws.rollback import Orphan, Rollback
from ragcun_cli.errors import ExitCode, RagcunError, UsageError
from ragcun_cli.files import sha256_of_file
from ragcun_cli.recipe.schema import Recipe

Say = Callable[[str], None]


class LaunchFailed(RagcunError):
    """A launch that failed, with what it left behind, if anything."""

    title = "aws"

    def __init__(self, cause: RagcunError, left: list[Orphan]) -> None:
        listed = "\n".join(f"  {each.sentence()}" for each in left)
        after = f"These remain:\n{listed}" if left else "Whatever this launch created has been removed."
        super().__init__(f"{cause.message}\n{after}", cause.hint)
        self.exit_code = cause.exit_code
        # No capacity, or AWS did not answer or was busy; not what another try would meet again.
        passes = isinstance(cause, NoMachine) or (isinstance(cause, AwsError) and cause.passes)
        self.may_be_repeated = passes and not left


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
    require_writable(plan.account, plan.bucket, plan.run)
    record = RunRecord(aws, plan.account, plan.bucket, plan.home, plan.run)
    attempt = _begin(1, plan.wishes.max_hours, plan)
    launch = describe_launch(plan, archive).with_attempts([attempt])

    def make(rollback: Rollback) -> Attempt:
        _require_no_parts(aws, plan)
        ensure_bucket(aws, plan.account, plan.bucket, plan.home, is_users=plan.wishes.bucket is not None)
        remove = f"aws s3 rm --recursive {record.address}"
        rollback.add(f"objects at {record.address}", remove, partial(release_run, record, launch))
        claim_run(record, launch)
        say(f"uploading code and recipes to {record.address}")
        upload_run(record, plan, archive)
        say("creating roles and log group")
        making = Making(aws, plan, attempt, archive.sha256)
        table.create(making, (Where.HOME, Where.ACCOUNT), rollback)
        return _start(making, record, launch, rollback, say)

    return _or_undone(make)


def continue_run(
    aws: Aws,
    plan: LaunchPlan,
    record: RunRecord,
    before: LaunchRecord,
    launch: LaunchRecord,
    hours: float,
    archive: CodeArchive | None,
    say: Say,
) -> Attempt:
    """Start another machine for an interrupted run. before: launch.json as it was read; launch: its new content;
    hours: what is left of --max-hours; archive: new code, if any.

    Raises:
        LaunchFailed: as `launch_run`, or if another command is starting one at the same time; what earlier attempts
            saved is kept.
    """
    require_launchable(plan)
    attempt = _begin(len(launch.attempts) + 1, hours, plan)
    begun = launch.with_attempts([*launch.attempts, attempt])

    def make(rollback: Rollback) -> Attempt:
        # The attempt stays recorded as long as it may have machines.
        restore = partial(_restore, record, attempt, before)
        rollback.add("the attempt in launch.json", f"ragcun aws status {plan.run}", restore, serves_machines=True)
        record.replace_launch(before, begun)
        if archive is not None:
            record.write(archive.key, archive.content)
        making = Making(aws, plan, attempt, begun.code.sha256)
        # An earlier attempt may have created these; all attempts share them, so they are kept.
        table.create(making, (Where.HOME, Where.ACCOUNT), Rollback())
        return _start(making, record, begun, rollback, say)

    return _or_undone(make)


def _restore(record: RunRecord, attempt: Attempt, before: LaunchRecord) -> None:
    """Take an attempt that failed out of launch.json, whether or not its machines were recorded."""
    there = record.launch()
    if there is not None and there.last_attempt is not None and there.last_attempt.started == attempt.started:
        record.replace_launch(there, before)
        keep(before, record.bucket)


def describe_launch(plan: LaunchPlan, archive: CodeArchive) -> LaunchRecord:
    """Return the content of launch.json before the first attempt."""
    job = plan.job
    return LaunchRecord(
        format=FORMAT,
        run=plan.run,
        id=uuid.uuid4().hex,
        account=plan.account,
        created=now().isoformat(),
        wishes=plan.wishes,
        code=archive.identity(),
        recipes={f"recipes/{name}.yaml": _sha256(text.encode()) for name, text in job.rendered().items()},
        work={recipe.name: _digest_of_work(recipe) for recipe in job.recipes},
        inputs={key: sha256_of_file(path) for key, path in uploads_of(job)},
        base_models=job.base_models,
        seeds=job.seeds,
        datasets=job.datasets,
        downloads=job.downloads,
        precision=job.precision,
        triples=job.triples,
    )


def _digest_of_work(recipe: Recipe) -> str:
    """Return a recipe's digest without its backup address, which depends on the run's bucket."""
    return _sha256(json.dumps(recipe.model_dump(exclude={"backup"}), sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _require_no_parts(aws: Aws, plan: LaunchPlan) -> None:
    """Refuse a new run if its parts exist: they may belong to another run, which must not be affected."""
    if profile_exists(aws, plan.run):
        raise UsageError(
            f"--run {plan.run}: the account has parts of another run of this name, whose objects are elsewhere or gone",
            "Choose another name (--run NAME). `ragcun aws gc` lists the parts; --delete removes unused ones.",
        )


def _begin(number: int, hours: float, plan: LaunchPlan) -> Attempt:
    started = now()
    end = started + datetime.timedelta(hours=hours)
    return Attempt(
        number=number,
        region="",
        zone="",
        instances=(),
        dollars_per_hour=None,
        started=started.isoformat(),
        end=end.isoformat(),
        gpus=plan.instance.gpus,
        cache_gib=plan.cache_gib,
    )


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


def _start(making: Making, record: RunRecord, launch: LaunchRecord, rollback: Rollback, say: Say) -> Attempt:
    """Start in the first usable region that has the machines. launch: launch.json with this attempt last.

    The machines are recorded last: one that is not does no work, as no schedule may end it.
    """
    plan, reasons, remaining = making.plan, list[str](), list[Orphan]()
    for region in plan.usable():
        say(f"requesting {plan.wishes.nodes} x {plan.instance.name} in {region.name}")
        here = Rollback()
        there = dataclasses.replace(making, region=region, group=plan.wishes.security_group or "")
        try:
            table.create(there, (Where.REGION,), here)
        except NoMachine as error:
            reasons.append(error.message)
            say(error.message)
            left = here.run()
            for each in left:
                rollback.add(each.what, each.cure, partial(_still_there, each), ends_machines=each.is_machine)
            if here.was_interrupted:
                raise KeyboardInterrupt from None
            if any(each.is_machine for each in left):
                raise AwsError(f"{region.name}: machines that were started there could not be ended") from None
            remaining += left
            continue
        except BaseException:
            rollback.extend(here)
            raise
        rollback.extend(here)
        started = _started(there, region)
        recorded = launch.with_attempts([*launch.attempts[:-1], started])
        record.replace_launch(launch, recorded)
        keep(recorded, plan.bucket)
        for each in remaining:
            say(f"This remains: {each.sentence()}")
        return started
    market = "on demand" if plan.wishes.on_demand else "as spot"
    raise NoMachine(
        f"no {plan.instance.name} is available {market}:\n" + "\n".join(f"  {each}" for each in reasons),
        "Try more regions (--region A --region B), another --instance, "
        + ("--wait 6h, or again later." if plan.wishes.on_demand else "--on-demand, --wait 6h, or again later.")
        + (f" {plan.capacity_blocks}" if plan.capacity_blocks else ""),
    )


def _started(making: Making, region: RegionPlan) -> Attempt:
    ids = making.instances
    zone = next((each.zone for each in find_machines(making.aws, making.plan.run, region.name) if each.id in ids), "")
    prices = {each.name: each.spot.dollars for each in region.zones}
    dollars = region.on_demand.dollars if making.plan.wishes.on_demand else prices.get(zone)
    return dataclasses.replace(
        making.attempt, region=region.name, zone=zone, instances=tuple(ids), dollars_per_hour=dollars
    )


def _still_there(left: Orphan) -> None:
    raise AwsError(left.why)
