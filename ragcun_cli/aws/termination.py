"""End a run and remove what it has on AWS, whatever its records say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.kept import forget, kept_record
from ragcun_cli.aws.launch_record import Attempt, LaunchRecord, now
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.aws.resources import table
from ragcun_cli.aws.resources.bucket import remove_bucket_if_empty, remove_objects
from ragcun_cli.aws.resources.iam import profile_exists
from ragcun_cli.aws.resources.machines import ENDING, find_machines
from ragcun_cli.aws.rollback import Orphan
from ragcun_cli.aws.runs import find_records, is_young, no_such_run, regions_of
from ragcun_cli.errors import EnvironmentUnfit, RagcunError


@dataclass(frozen=True)
class Doomed:
    """What there is of a run. record: where its objects are, None if it has none; launch: None if that cannot be used,
    with the problem; regions: where its resources may be; instances: ids by region of all machines that were recorded;
    unlisted: of those that this computer has just started, which EC2 may not list yet; unread: regions that could not
    be looked at.
    """

    run: str
    account: str
    record: RunRecord | None
    launch: LaunchRecord | None
    problem: str
    regions: tuple[str, ...]
    instances: dict[str, tuple[str, ...]]
    unlisted: dict[str, tuple[str, ...]]
    unread: tuple[str, ...]
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
    """Find a run by its objects, else by its parts, and its machines wherever they are, whatever its record says.

    Raises:
        UsageError: if there is neither.
    """
    account, unreadable = aws.account()[0], ""
    try:
        records = find_records(aws, account, run, region, bucket)
    except EnvironmentUnfit as error:  # the machines must end all the same
        records, unreadable = [], error.message
    with_machines, other_regions, unread = _regions_of_machines(aws, run, region)
    if not records and not with_machines and not profile_exists(aws, run):
        if unreadable:
            raise AwsError(unreadable)
        raise no_such_run(aws, account, run, region, bucket)
    record = records[0] if records else None
    launch, problem = _usable_record(record)
    problem = unreadable or problem
    home = region if record is None else record.region
    known_regions = [] if launch is None else regions_of(launch)
    copy = None if record is None else _copy_of(record)
    known_regions += [] if copy is None else regions_of(copy)
    # Without a usable record, groups and templates may be anywhere.
    regions = tuple(dict.fromkeys([*known_regions, *with_machines, *(other_regions if launch is None else ())]))
    unread = tuple(each for each in unread if each not in regions)
    return Doomed(
        run=run,
        account=account,
        record=record,
        launch=launch,
        problem=problem,
        regions=regions,
        instances=_instances_by_region([*_attempts(launch), *_attempts(copy)]),
        unlisted=_instances_by_region([each for each in _attempts(copy) if is_young(each)]),
        unread=unread,
        home=home,
    )


def _attempts(record: LaunchRecord | None) -> tuple[Attempt, ...]:
    return () if record is None else record.attempts


def _instances_by_region(attempts: Sequence[Attempt]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for attempt in attempts:
        if attempt.region:
            found[attempt.region] = tuple(dict.fromkeys((*found.get(attempt.region, ()), *attempt.instances)))
    return found


def _usable_record(record: RunRecord | None) -> tuple[LaunchRecord | None, str]:
    """Return the launch record, or why there is none that can be used."""
    if record is None:
        return None, "its objects are gone"
    try:
        launch = record.launch()
    except (RagcunError, OSError) as error:
        return None, str(error)
    return launch, "" if launch is not None else "launch.json is missing"


def _copy_of(record: RunRecord) -> LaunchRecord | None:
    try:
        return kept_record(record.account, record.bucket, record.run)
    except RagcunError:
        return None


def _regions_of_machines(aws: Aws, run: str, home: str) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Return the regions where the run has machines, the others, and those that could not be looked at."""
    found: list[str] = []
    others: list[str] = []
    unread: list[str] = []
    try:
        regions = all_regions(aws, home)
    except AwsError:
        return [], [home], ("the list of regions",)
    for region in regions:
        try:
            (found if find_machines(aws, run, region, ENDING) else others).append(region)
        except AwsError:
            unread.append(region)
    return found, others, tuple(unread)


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
    left = table.remove_run(aws, found.run, found.home, found.regions, has_budget, found.instances, found.unlisted)
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
