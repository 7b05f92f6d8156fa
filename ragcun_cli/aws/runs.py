"""Find launched runs by name, and determine their state."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from dataclasses import dataclass
from typing import Any

import yaml

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.job import Job, staging_job
from ragcun_cli.aws.launch_record import (
    ENDED,
    INTERRUPTED,
    LAUNCH_FILE,
    OUT_OF_TIME,
    RUNNING,
    Attempt,
    LaunchRecord,
    MachineStatus,
    as_time,
    now,
)
from ragcun_cli.aws.record import Reported, RunRecord, as_aws_errors, hours_used
from ragcun_cli.aws.resources.bucket import NOT_OURS, bucket_is_taken
from ragcun_cli.aws.resources.machines import MachineState, find_machines, reason_of
from ragcun_cli.aws.state_reason import NO_REASON, StateReason
from ragcun_cli.errors import DataError, EnvironmentUnfit, UsageError
from ragcun_cli.recipe.encoder_shapes import shape_of
from ragcun_cli.recipe.schema import Recipe

SECONDS_TO_SHOW = 300.0  # EC2's lists lag behind what it has started; this must not lead to a second machine
LOST, STARTING, TERMINATED = "lost", "starting", "terminated"


@dataclass(frozen=True)
class FoundRun:
    """A run with its launch.json, what its machine said, its current machines, and EC2's reason for the last one's end.

    seen_alive: when this process last saw one of its machines, if it did.
    """

    record: RunRecord
    launch: LaunchRecord
    reported: Reported
    machines: tuple[MachineState, ...]
    reason: StateReason = NO_REASON
    seen_alive: datetime.datetime | None = None

    @property
    def run(self) -> str:
        return self.record.run

    @property
    def status(self) -> MachineStatus | None:
        """What the last attempt's machine said, or None if it has said nothing yet."""
        status, last = self.reported.status, self.last_attempt
        if status is None or last is None or status.attempt != last.number:
            return None
        # An attempt's number is used again if its launch failed: a machine of that one does not speak for this one.
        is_its = not last.instances or status.instance in ("", *last.instances)
        return status if is_its else None

    @property
    def regions(self) -> list[str]:
        """The regions where the run may have resources: those tried and those allowed."""
        return regions_of(self.launch)

    @property
    def last_attempt(self) -> Attempt | None:
        """The newest attempt, or None before the first."""
        return self.launch.last_attempt

    def state(self) -> str:
        """`starting`, `running`, `interrupted`, `finished`, `failed`, `idle`, `out-of-time`, `terminated` or `lost`.

        lost: its machine is gone without reporting why, for example after a hardware failure.
        """
        if self.launch.terminated:
            return TERMINATED
        if self.status is not None and self.status.state in (*ENDED, INTERRUPTED):
            return self.status.state
        if self.machines:
            return RUNNING if self.status is not None else STARTING
        if self.status is None and self.last_attempt is not None and is_young(self.last_attempt):
            return STARTING
        is_over = self.last_attempt is not None and now() >= as_time(self.last_attempt.end)
        return OUT_OF_TIME if is_over else LOST

    def may_go_on(self) -> bool:
        """Return whether another machine should continue the run automatically.

        Not if EC2 does not say, or no longer, why the last one ended: its owner may have ended it.
        """
        is_revivable = bool(self.reason.code) and not self.reason.is_final
        return self.state() == INTERRUPTED or (self.state() == LOST and is_revivable)

    def last_sign(self) -> datetime.datetime | None:
        """Return when the last attempt's machines were last known to be there, or None if that is not known.

        Not what a machine says of itself: it could keep its hours from counting.
        """
        if self.machines:
            return now()
        heard = self.reported.received if self.status is not None else None
        return max((each for each in (heard, self.seen_alive, self.reason.when) if each is not None), default=None)

    def hours(self) -> float:
        """Return the machine hours used so far."""
        return hours_used(self.launch.attempts, self.last_sign())

    def witnessed_sign(self) -> datetime.datetime | None:
        """Return the last sign, or None unless EC2 or this process saw the end, or it is recent.

        A machine that stopped speaking may have gone on.
        """
        last_sign = self.last_sign()
        if last_sign is None or self.seen_alive is not None or self.reason.when is not None:
            return last_sign
        return last_sign if (now() - last_sign).total_seconds() < SECONDS_TO_SHOW else None

    def hours_at_most(self) -> float:
        """Return the machine hours that may be used: an end that nobody saw counts until now, or its deadline."""
        return hours_used(self.launch.attempts, self.witnessed_sign())

    def cost(self) -> float | None:
        """Return the dollars spent so far, at each attempt's starting price, or None if one is unknown."""
        total = 0.0
        for attempt in self.launch.attempts:
            if attempt.dollars_per_hour is None and attempt.instances:
                return None
            last_sign = self.last_sign() if attempt is self.last_attempt else None
            total += hours_used([attempt], last_sign) * (attempt.dollars_per_hour or 0.0) * self.launch.wishes.nodes
        return total

    def why(self) -> str:
        """Return why the run is in its state, as far as is known."""
        if self.state() == LOST:
            return self.reason.sentence() or "its machine is gone and did not say why, and EC2 no longer does"
        return "" if self.status is None else self.status.reason

    def as_json(self) -> dict[str, Any]:
        """Return the fields for `--json`."""
        return {
            "run": self.run,
            "state": self.state(),
            "reason": self.why(),
            "bucket": self.record.address,
            "attempts": [dataclasses.asdict(each) for each in self.launch.attempts],
            "hours": round(self.hours(), 3),
            "max_hours": self.launch.wishes.max_hours,
            "cost_so_far": None if (cost := self.cost()) is None else round(cost, 2),
            "machines": [dataclasses.asdict(machine) for machine in self.machines],
            "status": {} if self.reported.status is None else self.reported.status.as_json(),
            "status_problem": self.reported.problem,
        }


def is_young(attempt: Attempt) -> bool:
    """Return whether an attempt is so recent that EC2 may not list its machines yet."""
    return (now() - as_time(attempt.started)).total_seconds() < SECONDS_TO_SHOW


def regions_of(launch: LaunchRecord) -> list[str]:
    """List the regions where a run may have resources: those tried and those allowed."""
    tried = [attempt.region for attempt in launch.attempts if attempt.region]
    return list(dict.fromkeys([*tried, *launch.wishes.regions]))


def buckets_of_ragcun(aws: Aws, account: str, region: str) -> list[str]:
    """List the account's buckets that `aws launch` created."""
    request = {"Prefix": f"{names.PREFIX}{account}-"}
    return [each["Name"] for each in aws.call("s3", "list_buckets", request, region=region).get("Buckets", [])]


def region_of_bucket(aws: Aws, bucket: str, region: str) -> str | None:
    """Return a bucket's region, or None if there is no such bucket.

    Raises:
        EnvironmentUnfit: if we may not use it.
    """
    try:
        answer = aws.ask("s3", "head_bucket", {"Bucket": bucket}, region=region, absent=("404", "NoSuchBucket"))
    except AwsError as error:
        if error.code in NOT_OURS:
            raise bucket_is_taken(bucket) from None
        raise
    if answer is None:
        return None
    return str(
        answer.get("BucketRegion") or answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", region)
    )


def _buckets(aws: Aws, account: str, region: str, bucket: str | None) -> list[tuple[str, str]]:
    """Return name and region of the given bucket, or of all that ragcun created and that may be used.

    Raises:
        EnvironmentUnfit: if none may be used.
    """
    known = [bucket] if bucket else buckets_of_ragcun(aws, account, region)
    found, refusals = [], list[EnvironmentUnfit]()
    for name in known:
        try:
            place = region_of_bucket(aws, name, region)
        except EnvironmentUnfit as error:  # one bucket must not hide the others
            refusals.append(error)
            continue
        found += [] if place is None else [(name, place)]
    if refusals and not found:
        raise refusals[0]
    return found


def find_records(aws: Aws, account: str, run: str, region: str, bucket: str | None) -> list[RunRecord]:
    """Return where there are objects of a run of this name, whatever they contain.

    Raises:
        UsageError: if two buckets have a run of this name.
        EnvironmentUnfit: if no bucket may be used, or S3 does not answer.
    """
    places = [RunRecord(aws, account, name, place, run) for name, place in _buckets(aws, account, region, bucket)]
    with as_aws_errors():
        found = [record for record in places if record.store().has(LAUNCH_FILE)]
    if len(found) > 1:
        buckets = ", ".join(record.bucket for record in found)
        raise UsageError(f"run {run}: several buckets have a run of this name: {buckets}", "Choose one: --bucket")
    return found


def find_run(aws: Aws, account: str, run: str, region: str, bucket: str | None) -> FoundRun | None:
    """Find a run by name, in the given bucket or in those that ragcun created; return None if there is none.

    Raises:
        UsageError: if two buckets have a run of this name.
        DataError: if its record cannot be used.
    """
    for record in find_records(aws, account, run, region, bucket):
        launch = record.launch()
        if launch is None:
            return None
        machines = tuple(each for place in regions_of(launch) for each in find_machines(aws, run, place))
        last = launch.last_attempt
        reason = NO_REASON if machines or last is None else reason_of(aws, last.region, last.instances)
        return FoundRun(record, launch, record.reported(), machines, reason)
    return None


def require_run(aws: Aws, account: str, run: str, region: str, bucket: str | None) -> FoundRun:
    """Return what `find_run` finds, or raise an error that lists the existing runs.

    Raises:
        UsageError: if there is no such run.
    """
    found = find_run(aws, account, run, region, bucket)
    if found is None:
        raise no_such_run(aws, account, run, region, bucket)
    return found


def no_such_run(aws: Aws, account: str, run: str, region: str, bucket: str | None) -> UsageError:
    """Build the error for a name that no run has, with the names that there are."""
    known = runs_in(aws, account, region, bucket)
    return UsageError(
        f"{run}: there is no run of this name",
        "Runs: " + ", ".join(known)
        if known
        else "No run has been launched in this account, or its bucket must be named with --bucket.",
    )


def runs_in(aws: Aws, account: str, region: str, bucket: str | None) -> list[str]:
    """List the names of all runs."""
    found = []
    for name, place in _buckets(aws, account, region, bucket):
        request = {"Bucket": name, "Prefix": f"{names.RUNS}/", "Delimiter": "/"}
        for each in aws.pages("s3", "list_objects_v2", request, region=place, key="CommonPrefixes"):
            found.append(each["Prefix"].split("/")[1])
    return sorted(found)


def job_of(found: FoundRun) -> Job:
    """Rebuild the job from the run's stored recipes, so that continuing it needs none of the user's files.

    Raises:
        DataError: if a recipe differs from what was uploaded.
    """
    launch, place = found.launch, found.record.store()
    if not launch.recipes:
        return staging_job(launch.downloads)
    recipes = []
    for key, digest in launch.recipes.items():
        with as_aws_errors():
            content = place.read(key) or b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError(f"{found.record.address}{key}: differs from what was uploaded (sha256)")
        recipes.append(Recipe.model_validate(yaml.safe_load(content)))
    return Job(
        recipes=tuple(recipes),
        seeds=launch.seeds,
        datasets=launch.datasets,
        downloads=launch.downloads,
        precision=launch.precision,
        inputs=(),
        triples=launch.triples,
        shapes={recipe.name: shape_of(recipe.base_model) for recipe in recipes},
    )


def differences(launch: LaunchRecord, other: LaunchRecord) -> list[str]:
    """List the respects in which two launches of one name do different work."""
    keys = ("work", "inputs", "seeds", "datasets", "precision")
    return ["recipes" if key == "work" else key for key in keys if getattr(launch, key) != getattr(other, key)]
