"""Find out what a launch would do, cost and need, and what prevents it, without creating anything."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws
from ragcun_cli.aws.estimates import JobEstimate, estimate_job
from ragcun_cli.aws.image import find_image
from ragcun_cli.aws.instances import InstanceType, describe_instance, known_instance
from ragcun_cli.aws.job import Job
from ragcun_cli.aws.launch_record import LaunchRequest
from ragcun_cli.aws.plan import LaunchPlan, RegionPlan, Zone
from ragcun_cli.aws.policy import check_boundary
from ragcun_cli.aws.prices import UNKNOWN, on_demand_price, spot_prices, table_price
from ragcun_cli.aws.quota import Quota, look_up_quota, quota_of
from ragcun_cli.aws.resources.bucket import is_ours
from ragcun_cli.aws.staging import staged_files
from ragcun_cli.aws.subnets import find_network
from ragcun_cli.errors import EnvironmentUnfit, UsageError

REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


def make_plan(aws: Aws, wishes: LaunchRequest, job: Job) -> LaunchPlan:
    """Ask AWS for everything that a launch depends on. Read-only.

    Raises:
        UsageError: for a region that does not exist.
        EnvironmentUnfit: if the instance type is retired or unknown, or AWS does not answer.
    """
    for region in wishes.regions:
        aws.require_region(region)
    account, user = aws.account()
    instance = describe_instance(aws, wishes.instance, wishes.regions)
    bucket = wishes.bucket or names.bucket_name(account, wishes.regions[0])
    staged = staged_files(aws, account, bucket, wishes.regions[0])
    estimate = _estimate(job, instance, wishes, staged)
    refusal, remark = check_boundary(aws, account, wishes.bucket)
    refusals = [refusal] if refusal else []
    if wishes.bucket is not None and not is_ours(aws, account, wishes.bucket, wishes.regions[0]):
        refusals.append(f"--bucket {wishes.bucket}: there is no such bucket; create it, or leave --bucket out")
    return LaunchPlan(
        wishes=wishes,
        job=job,
        account=account,
        user=user,
        bucket=bucket,
        instance=instance,
        regions=tuple(_plan_region(aws, wishes, instance, region) for region in wishes.regions),
        disk=estimate.disk.total,
        cache_gib=estimate.disk.cache,
        estimate=estimate,
        partition=aws.partition,
        refusals=tuple(refusals),
        remarks=(remark,) if remark else (),
    )


def make_offline_plan(wishes: LaunchRequest, job: Job) -> LaunchPlan:
    """Make the same plan from ragcun's own tables, without an account.

    Raises:
        UsageError: if a region's name is malformed.
        EnvironmentUnfit: if the tables do not have the instance type.
    """
    for region in wishes.regions:
        if REGION.fullmatch(region) is None:
            raise UsageError(f"--region {region}: AWS has no such region", "Region names look like us-east-1.")
    instance = known_instance(wishes.instance)
    quota = Quota(*quota_of(instance, wishes.on_demand), instance.vcpus * wishes.nodes, None)
    zone = Zone("any", "", table_price(instance.name, on_demand=False))
    regions = tuple(
        RegionPlan(name, (zone,), "", table_price(instance.name, on_demand=True), quota, None, ())
        for name in wishes.regions
    )
    estimate = _estimate(job, instance, wishes, frozenset())
    return LaunchPlan(
        wishes=wishes,
        job=job,
        account="",
        user="",
        bucket=wishes.bucket or f"{names.PREFIX}ACCOUNT-{wishes.regions[0]}",
        instance=instance,
        regions=regions,
        disk=estimate.disk.total,
        cache_gib=estimate.disk.cache,
        estimate=estimate,
    )


def _estimate(job: Job, instance: InstanceType, wishes: LaunchRequest, staged: frozenset[str]) -> JobEstimate:
    machine = instance.machine(wishes.nodes)
    return estimate_job(job, machine, wishes.triples_per_second, staged=staged, disk=wishes.disk)


def _plan_region(aws: Aws, wishes: LaunchRequest, instance: InstanceType, region: str) -> RegionPlan:
    offered = _zones_with(aws, instance.name, region)
    spot = spot_prices(aws, instance.name, region)
    quota = look_up_quota(aws, instance, wishes.nodes, wishes.on_demand, region, wishes.run)
    obstacles = []
    image = None
    try:
        image = find_image(aws, region, wishes.image)
    except EnvironmentUnfit as error:
        if error.title == "aws":
            raise
        obstacles.append(f"{error.message}. {error.hint}")
    network = (
        find_network(aws, region, offered, wishes.subnets, wishes.security_group, wishes.nodes) if offered else None
    )
    obstacles += [f"AWS does not offer {instance.name} there"] if network is None else network.obstacles
    if not quota.suffices:
        used = f", {quota.used} of them in use" if quota.used else ""
        obstacles.append(
            f"the quota {quota.name!r} ({quota.code}) allows {quota.held:g} vCPUs{used}; {quota.needed} are needed. "
            f"Request more (takes minutes to days): {quota.increase_page(region)}"
        )
    price = on_demand_price(aws, instance.name, region)
    if network is None:
        return RegionPlan(region, (), "", price, quota, image, tuple(obstacles))
    zones = tuple(Zone(zone, subnet, spot.get(zone, UNKNOWN)) for zone, subnet in sorted(network.subnets.items()))
    return RegionPlan(region, zones, network.vpc, price, quota, image, tuple(obstacles), network.needs_public_address)


def _zones_with(aws: Aws, instance: str, region: str) -> set[str]:
    request = {
        "LocationType": "availability-zone",
        "Filters": [{"Name": "instance-type", "Values": [instance]}],
    }
    answer = aws.call("ec2", "describe_instance_type_offerings", request, region=region)
    return {each["Location"] for each in answer["InstanceTypeOfferings"]}


def parsed_regions(given: Sequence[str], default: str | None) -> tuple[str, ...]:
    """Return the command line's regions, else the session's own, else us-east-1.

    Each appears once, in order; `--region a,b` means the same as `--region a --region b`.
    """
    asked = [part.strip() for each in given for part in each.split(",") if part.strip()]
    return tuple(dict.fromkeys(asked or [default or "us-east-1"]))
