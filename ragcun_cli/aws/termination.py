"""End a run and remove what it has on AWS, whatever its records say."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.kept import forget
from ragcun_cli.aws.launch_record import LaunchRecord, now
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.aws.resources import table
from ragcun_cli.aws.resources.bucket import remove_bucket_if_empty, remove_objects
from ragcun_cli.aws.resources.iam import profile_exists
from ragcun_cli.aws.rollback import Orphan
from ragcun_cli.aws.runs import find_records, find_run, regions_of, runs_in
from ragcun_cli.errors import DataError, RagcunError, UsageError


@dataclass(frozen=True)
class Doomed:
    """What there is of a run. record: where its objects are, None if it has none; launch: None if that cannot be used,
    with the problem; regions: where its machines may be."""

    run: str
    account: str
    record: RunRecord | None
    launch: LaunchRecord | None
    state: str
    problem: str
    regions: list[str]
    home: str

    @property
    def address(self) -> str:
        """Where its objects are."""
        return "no bucket" if self.record is None else self.record.address


@dataclass(frozen=True)
class Removed:
    """What was removed: objects, and whether the bucket; and what could not be."""

    left: list[Orphan]
    objects: int = 0
    bucket: bool = False


def all_regions(aws: Aws, region: str) -> list[str]:
    """List the regions that the account may use."""
    answer = aws.call("ec2", "describe_regions", {"AllRegions": False}, region=region)
    return sorted(each["RegionName"] for each in answer["Regions"])


def what_there_is(aws: Aws, run: str, region: str, bucket: str | None) -> Doomed:
    """Find a run by its objects, else by its parts.

    Raises:
        UsageError: if there is neither.
    """
    account = aws.account()[0]
    records = find_records(aws, account, run, region, bucket)
    if not records:
        return _without_objects(aws, account, run, region, bucket)
    record = records[0]
    try:
        found = find_run(aws, account, run, region, bucket)
    except DataError as error:
        return Doomed(
            run, account, record, None, "its state is not known", error.message, all_regions(aws, region), record.region
        )
    if found is None:
        raise UsageError(f"{run}: another command has just removed this run")
    return Doomed(run, account, record, found.launch, found.state(), "", regions_of(found.launch), record.region)


def _without_objects(aws: Aws, account: str, run: str, region: str, bucket: str | None) -> Doomed:
    if not profile_exists(aws, run):
        known = runs_in(aws, account, region, bucket)
        raise UsageError(
            f"{run}: there is no run of this name",
            "Runs: " + ", ".join(known)
            if known
            else "No run has been launched in this account, or its bucket must be named with --bucket.",
        )
    return Doomed(run, account, None, None, "its objects are gone", "it has none", all_regions(aws, region), region)


def remove_all(aws: Aws, found: Doomed, keep_objects: bool, delete_bucket: bool) -> Removed:
    """End the machines and remove everything; the objects last, and only once nothing else is left."""
    record, unmarked = found.record, list[Orphan]()
    if record is not None and found.launch is not None:
        # Do this first: it keeps `aws watch` from starting another machine meanwhile. Without it the machines end too.
        try:
            record.write_launch(dataclasses.replace(found.launch, terminated=now().isoformat()))
        except AwsError as error:
            unmarked.append(Orphan(f"record of run {found.run}", error.message, table.cure(found.run)))
    has_budget = found.launch is None or found.launch.wishes.email is not None
    left = table.remove_run(aws, found.run, found.home, found.regions, has_budget)
    if found.launch is None:  # a budget that we may not even look for is not known to be there
        left = [each for each in left if not each.what.startswith("budget")]
    if left or record is None:
        return Removed([*unmarked, *left])
    if keep_objects:
        return Removed(unmarked)
    try:
        count = remove_objects(record)
        is_ours = record.bucket.startswith(f"{names.PREFIX}{found.account}-")
        gone = delete_bucket and is_ours and remove_bucket_if_empty(aws, record.bucket, record.region)
    except RagcunError as error:
        return Removed([Orphan(f"objects at {record.address}", error.message, table.cure(found.run))])
    forget(found.account, record.bucket, found.run)
    return Removed([], count, gone)
