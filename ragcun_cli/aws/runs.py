"""Find launched runs by name, and determine their state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.job import Job
from ragcun_cli.aws.machines import MachineState, find_machines
from ragcun_cli.aws.plan import LaunchRequest
from ragcun_cli.aws.record import (
    ENDED,
    INTERRUPTED,
    OUT_OF_TIME,
    RUNNING,
    TERMINATED,
    RunRecord,
    as_time,
    hours_used,
    now,
)
from ragcun_cli.aws.storage import NOT_OURS, bucket_is_taken
from ragcun_cli.errors import UsageError
from ragcun_cli.recipe.encoder_shapes import shape_of
from ragcun_cli.recipe.schema import Recipe

SECONDS_TO_SHOW = 300.0  # EC2's lists lag behind what it has started; this must not lead to a second machine


@dataclass(frozen=True)
class FoundRun:
    """A run with its launch.json, its status.json (empty until a machine writes it) and its current machines."""

    record: RunRecord
    launch: dict[str, Any]
    status: dict[str, Any]
    machines: tuple[MachineState, ...]

    @property
    def run(self) -> str:
        return self.record.run

    @property
    def regions(self) -> list[str]:
        """The regions where the run may have resources: those tried and those allowed."""
        tried = [attempt["region"] for attempt in self.launch["attempts"] if attempt["region"]]
        return list(dict.fromkeys([*tried, *self.launch["wishes"]["regions"]]))

    @property
    def last_attempt(self) -> dict[str, Any] | None:
        """The newest attempt, or None before the first."""
        attempts = self.launch["attempts"]
        return attempts[-1] if attempts else None

    def state(self) -> str:
        """`starting`, `running`, `interrupted`, `finished`, `failed`, `idle`, `out-of-time`, `terminated` or `lost`.

        lost: its machine is gone without reporting why, for example after a hardware failure.
        """
        if self.launch.get("terminated"):
            return TERMINATED
        said = self.status.get("state", "")
        is_of_last = self.last_attempt is not None and self.status.get("attempt") == self.last_attempt["number"]
        if is_of_last and said in (*ENDED, INTERRUPTED):
            return str(said)
        if self.machines:
            return RUNNING if is_of_last else "starting"
        if not is_of_last and self._is_young():
            return "starting"
        is_over = self.last_attempt is not None and now() >= as_time(self.last_attempt["end"])
        return OUT_OF_TIME if is_over else "lost"

    def _is_young(self) -> bool:
        """Return whether the last attempt is so recent that EC2 may not list its machines yet."""
        attempt = self.last_attempt
        return attempt is not None and (now() - as_time(attempt["started"])).total_seconds() < SECONDS_TO_SHOW

    def may_go_on(self) -> bool:
        """Return whether another machine should continue the run automatically."""
        return self.state() in (INTERRUPTED, "lost")

    def hours(self) -> float:
        """Return the machine hours used so far."""
        return hours_used(self.launch["attempts"], self.status, bool(self.machines))

    def cost(self) -> float | None:
        """Return the dollars spent so far, at each attempt's starting price, or None if one is unknown."""
        total = 0.0
        for attempt in self.launch["attempts"]:
            price, is_alive = attempt["dollars_per_hour"], attempt is self.last_attempt and bool(self.machines)
            if price is None and attempt["instances"]:
                return None
            total += hours_used([attempt], self.status, is_alive) * (price or 0.0) * self.launch["wishes"]["nodes"]
        return total

    def as_json(self) -> dict[str, Any]:
        """Return the fields for `--json`."""
        return {
            "run": self.run,
            "state": self.state(),
            "bucket": self.record.address,
            "attempts": self.launch["attempts"],
            "hours": round(self.hours(), 3),
            "max_hours": self.launch["wishes"]["max_hours"],
            "cost_so_far": None if (cost := self.cost()) is None else round(cost, 2),
            "machines": [vars(machine) for machine in self.machines],
            "status": self.status,
        }


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
    """Return name and region of the given bucket, or of all that ragcun created."""
    known = [bucket] if bucket else buckets_of_ragcun(aws, account, region)
    places = [(name, region_of_bucket(aws, name, region)) for name in known]
    return [(name, place) for name, place in places if place is not None]


def find_run(aws: Aws, account: str, run: str, region: str, bucket: str | None) -> FoundRun | None:
    """Find a run by name, in the given bucket or in those that ragcun created; return None if there is none.

    Raises:
        UsageError: if two buckets have a run of this name.
    """
    found = []
    for name, place in _buckets(aws, account, region, bucket):
        record = RunRecord(aws, account, name, place, run)
        launch = record.launch()
        if launch is not None:
            found.append((record, launch))
    if not found:
        return None
    if len(found) > 1:
        buckets = ", ".join(record.bucket for record, _ in found)
        raise UsageError(f"run {run}: several buckets have a run of this name: {buckets}", "Choose one: --bucket")
    record, launch = found[0]
    bare = FoundRun(record, launch, record.status(), ())
    machines = [machine for place in bare.regions for machine in find_machines(aws, run, place)]
    return FoundRun(record, launch, bare.status, tuple(machines))


def require_run(aws: Aws, account: str, run: str, region: str, bucket: str | None) -> FoundRun:
    """Return what `find_run` finds, or raise an error that lists the existing runs.

    Raises:
        UsageError: if there is no such run.
    """
    found = find_run(aws, account, run, region, bucket)
    if found is None:
        known = runs_in(aws, account, region, bucket)
        raise UsageError(
            f"{run}: there is no run of this name",
            "Runs: " + ", ".join(known)
            if known
            else "No run has been launched in this account, or its bucket must be named with --bucket.",
        )
    return found


def runs_in(aws: Aws, account: str, region: str, bucket: str | None) -> list[str]:
    """List the names of all runs."""
    found = []
    for name, place in _buckets(aws, account, region, bucket):
        request = {"Bucket": name, "Prefix": f"{names.RUNS}/", "Delimiter": "/"}
        for each in aws.pages("s3", "list_objects_v2", request, region=place, key="CommonPrefixes"):
            found.append(each["Prefix"].split("/")[1])
    return sorted(found)


def wishes_of(launch: dict[str, Any]) -> LaunchRequest:
    """Return the options that the run was launched with."""
    wishes = launch["wishes"]
    return LaunchRequest(**{**wishes, "regions": tuple(wishes["regions"])})


def job_of(found: FoundRun) -> Job:
    """Rebuild the job from the run's stored recipes, so that continuing it needs none of the user's files."""
    launch, place = found.launch, found.record.store()
    recipes = [Recipe.model_validate(yaml.safe_load(place.read(key) or b"")) for key in launch["recipes"]]
    return Job(
        recipes=tuple(recipes),
        seeds=tuple(launch["seeds"]),
        datasets=launch["datasets"],
        downloads=tuple(launch["downloads"]),
        precision=launch["precision"],
        inputs=(),
        triples=launch["triples"],
        shapes={recipe.name: shape_of(recipe.base_model) for recipe in recipes},
    )


def differences(launch: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """List the respects in which two launches of one name do different work."""
    keys: Sequence[str] = ("work", "inputs", "seeds", "datasets", "precision")
    return ["recipes" if key == "work" else key for key in keys if launch[key] != other[key]]
