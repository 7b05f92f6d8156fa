"""Find out what a launch would do, cost and need, and what prevents it, without creating anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws
from ragcun_cli.aws.estimates import JobEstimate, estimate_job
from ragcun_cli.aws.image import Image, find_image
from ragcun_cli.aws.instances import InstanceType, describe_instance, known_instance
from ragcun_cli.aws.job import Job
from ragcun_cli.aws.prices import (
    GP3_DOLLARS_PER_GIB_MONTH,
    HOURS_OF_A_MONTH,
    UNKNOWN,
    Price,
    on_demand_price,
    spot_prices,
    table_price,
)
from ragcun_cli.aws.quota import Quota, look_up_quota, quota_of
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.recipe.estimates import Estimate

REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


@dataclass(frozen=True)
class LaunchRequest:
    """What the command line asks for, except the job itself. regions: tried in this order; the first has the bucket.

    max_hours: for the whole run, across all its machines. max_cost: in dollars, only compared with the plan.
    """

    run: str
    instance: str
    regions: tuple[str, ...]
    on_demand: bool = False
    nodes: int = 1
    max_hours: float = 24.0
    max_cost: float | None = None
    idle_minutes: int = 30
    disk: int | None = None
    bucket: str | None = None
    image: str | None = None
    email: str | None = None
    triples_per_second: float | None = None


@dataclass(frozen=True)
class Zone:
    """A zone with a default subnet, where a machine may start."""

    name: str
    subnet: str
    spot: Price


@dataclass(frozen=True)
class RegionPlan:
    """One region. obstacles: why no machine is available there; empty if one may be."""

    name: str
    zones: tuple[Zone, ...]
    vpc: str
    on_demand: Price
    quota: Quota
    image: Image | None
    obstacles: tuple[str, ...]

    def cheapest(self, on_demand: bool) -> Price:
        """Return what a machine costs per hour there; for spot, in the cheapest zone."""
        if on_demand:
            return self.on_demand
        known = [zone.spot for zone in self.zones if zone.spot.dollars is not None]
        return min(known, key=lambda price: price.dollars or 0.0, default=UNKNOWN)


@dataclass(frozen=True)
class LaunchPlan:
    """Everything that a launch is based on."""

    wishes: LaunchRequest
    job: Job
    account: str
    user: str
    bucket: str
    instance: InstanceType
    regions: tuple[RegionPlan, ...]
    disk: int
    estimate: JobEstimate

    @property
    def run(self) -> str:
        return self.wishes.run

    @property
    def home(self) -> str:
        """The region of the bucket."""
        return self.wishes.regions[0]

    @property
    def prefix(self) -> str:
        """The prefix of the run's objects, with the trailing slash."""
        return names.prefix_of(self.run)

    def usable(self) -> list[RegionPlan]:
        """Return the regions in which nothing known prevents a launch."""
        return [region for region in self.regions if not region.obstacles]

    def hours(self) -> float | None:
        """Return the expected hours, or None if unknown."""
        return None if self.estimate.seconds is None else self.estimate.seconds / 3600

    def expected_cost(self) -> float | None:
        """Return the expected dollars as in `cost_of`, or None if price or hours are unknown."""
        hours = self.hours()
        return None if hours is None else self.cost_of(min(hours, self.wishes.max_hours))

    def cost_of(self, hours: float) -> float | None:
        """Return the dollars for `hours` at the price of the first usable region, or None if unknown.

        If no spot price is known, use the on-demand price, which spot never exceeds.
        """
        region = next(iter(self.usable() or self.regions), None)
        if region is None:
            return None
        price = region.cheapest(self.wishes.on_demand).dollars or region.on_demand.dollars
        return None if price is None else self._cost(price, hours)

    def cost_of_training(self, estimate: Estimate) -> float | None:
        """Return the dollars for one training's share of the machine, or None if unknown."""
        whole = None if estimate.seconds is None else self.cost_of(estimate.seconds / 3600)
        return None if whole is None else whole * self.estimate.share

    def knows_spot_price(self) -> bool:
        """Return whether the first usable region's spot price is known."""
        region = next(iter(self.usable() or self.regions), None)
        return region is not None and region.cheapest(on_demand=False).dollars is not None

    def maximum_cost(self) -> float | None:
        """Return the dollars if all --max-hours are used at the highest on-demand price; spot never costs more."""
        known = [region.on_demand.dollars for region in self.regions if region.on_demand.dollars is not None]
        return self._cost(max(known), self.wishes.max_hours) if known else None

    def _cost(self, dollars_an_hour: float, hours: float) -> float:
        disk = self.disk * GP3_DOLLARS_PER_GIB_MONTH / HOURS_OF_A_MONTH
        return self.wishes.nodes * (dollars_an_hour + disk) * hours

    def obstacles(self) -> list[str]:
        """List what prevents the launch; empty if nothing known does."""
        found = []
        if not self.usable():
            found += [f"{region.name}: {obstacle}" for region in self.regions for obstacle in region.obstacles]
        limit, most = self.wishes.max_cost, self.maximum_cost()
        if limit is not None and (most is None or most > limit):
            said = "is not known" if most is None else f"is ${most:,.2f}"
            found.append(
                f"--max-cost {limit:g}: the most that {self.wishes.max_hours:g} hours can cost {said}; "
                f"{self._fitting(limit, most)}choose another --instance"
            )
        return found

    def _fitting(self, limit: float, most: float | None) -> str:
        return "" if not most else f"--max-hours {self.wishes.max_hours * limit / most:.1f} would fit; or "

    def warnings(self) -> list[str]:
        """List what does not prevent the launch but should be known."""
        found = []
        hours = self.hours()
        if hours is not None and hours > self.wishes.max_hours:
            found.append(
                f"expected hours ({hours:.1f}) exceed --max-hours ({self.wishes.max_hours:g}): the run would be "
                "stopped early, with its progress saved"
            )
        if not self.account:
            return [*found, "AWS was not asked: prices are from ragcun's table, quotas and capacity unknown"]
        if self.wishes.email is None:
            found.append("no budget alert: --email ADDRESS adds one")
        for region in self.usable():
            if region.quota.held is None:
                found.append(f"{region.name}: AWS does not say how large the quota {region.quota.name!r} is")
            if not self.wishes.on_demand and region.cheapest(False).dollars is None:
                found.append(f"{region.name}: no spot price is known; there may be no spot machines of this type")
        return found

    def creates(self) -> list[str]:
        """Describe what the launch creates."""
        name, run = names.resource_name(self.run), self.run
        made = [
            f"bucket {self.bucket} (shared by all runs), objects below {self.prefix}",
            f"roles {name} and {names.deadline_role_name(run)}, instance profile {name}",
            f"log group {names.log_group_name(run)}",
            f"security group and launch template {name}, in the chosen region",
            f"{self.wishes.nodes} x {self.instance.name}, {'on demand' if self.wishes.on_demand else 'spot'}, "
            f"with a disk of {self.disk} GiB each",
            f"a schedule that ends them after {self.wishes.max_hours:g} hours",
        ]
        if self.wishes.nodes > 1:
            made.insert(4, f"placement group {name}")
        if self.wishes.email is not None:
            made.append(f"budget {name}, with emails to {self.wishes.email}")
        return made

    def as_json(self) -> dict[str, Any]:
        """Return the fields for `--json`."""
        return {
            "run": self.run,
            "account": self.account,
            "instance": asdict(self.instance),
            "market": "on-demand" if self.wishes.on_demand else "spot",
            "nodes": self.wishes.nodes,
            "bucket": self.bucket,
            "disk_gib": self.disk,
            "recipes": [recipe.name for recipe in self.job.recipes],
            "trainings": self.job.runs,
            "datasets": self.job.datasets,
            "downloads": list(self.job.downloads),
            "uploads": [str(each.path) for each in self.job.inputs],
            "regions": [_region_json(region, self.wishes.on_demand) for region in self.regions],
            "expected_hours": self.hours(),
            "expected_seconds": self.estimate.parts,
            "one_training": {
                name: each.as_json(self.cost_of_training(each)) for name, each in self.estimate.trainings.items()
            },
            "basis": list(self.estimate.basis),
            "max_hours": self.wishes.max_hours,
            "expected_cost": self.expected_cost(),
            "maximum_cost": self.maximum_cost(),
            "creates": self.creates(),
            "obstacles": self.obstacles(),
            "warnings": self.warnings(),
        }


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
    estimate = estimate_job(job, instance.machine(wishes.nodes), wishes.triples_per_second)
    return LaunchPlan(
        wishes=wishes,
        job=job,
        account=account,
        user=user,
        bucket=wishes.bucket or names.bucket_name(account, wishes.regions[0]),
        instance=instance,
        regions=tuple(_plan_region(aws, wishes, instance, region) for region in wishes.regions),
        disk=wishes.disk or estimate.disk,
        estimate=estimate,
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
    estimate = estimate_job(job, instance.machine(wishes.nodes), wishes.triples_per_second)
    return LaunchPlan(
        wishes=wishes,
        job=job,
        account="",
        user="",
        bucket=wishes.bucket or f"{names.PREFIX}ACCOUNT-{wishes.regions[0]}",
        instance=instance,
        regions=regions,
        disk=wishes.disk or estimate.disk,
        estimate=estimate,
    )


def require_launchable(plan: LaunchPlan) -> None:
    """Refuse a launch that is known to fail.

    Raises:
        EnvironmentUnfit: naming every obstacle.
    """
    if obstacles := plan.obstacles():
        raise EnvironmentUnfit("this cannot be launched:\n" + "\n".join(f"  {each}" for each in obstacles))


def _plan_region(aws: Aws, wishes: LaunchRequest, instance: InstanceType, region: str) -> RegionPlan:
    offered = _zones_with(aws, instance.name, region)
    subnets = _default_subnets(aws, region)
    spot = spot_prices(aws, instance.name, region)
    zones = tuple(
        Zone(zone, subnet, spot.get(zone, UNKNOWN)) for zone, subnet in sorted(subnets.items()) if zone in offered
    )
    quota = look_up_quota(aws, instance, wishes.nodes, wishes.on_demand, region, wishes.run)
    obstacles = []
    image = None
    try:
        image = find_image(aws, region, wishes.image)
    except EnvironmentUnfit as error:
        if error.title == "aws":
            raise
        obstacles.append(f"{error.message}. {error.hint}")
    vpc = _default_vpc(aws, region)
    if not offered:
        obstacles.append(f"AWS does not offer {instance.name} there")
    elif vpc is None:
        obstacles.append(f"there is no default VPC; create one: aws ec2 create-default-vpc --region {region}")
    elif not zones:
        obstacles.append(
            f"the zones that have {instance.name} ({', '.join(sorted(offered))}) have no default subnet; "
            f"create one: aws ec2 create-default-subnet --availability-zone {min(offered)} --region {region}"
        )
    if not quota.suffices:
        used = f", {quota.used} of them in use" if quota.used else ""
        obstacles.append(
            f"the quota {quota.name!r} ({quota.code}) allows {quota.held:g} vCPUs{used}; {quota.needed} are needed. "
            f"Request more (takes minutes to days): {quota.increase_page(region)}"
        )
    price = on_demand_price(aws, instance.name, region)
    return RegionPlan(region, zones, vpc or "", price, quota, image, tuple(obstacles))


def _zones_with(aws: Aws, instance: str, region: str) -> set[str]:
    request = {
        "LocationType": "availability-zone",
        "Filters": [{"Name": "instance-type", "Values": [instance]}],
    }
    answer = aws.call("ec2", "describe_instance_type_offerings", request, region=region)
    return {each["Location"] for each in answer["InstanceTypeOfferings"]}


def _default_vpc(aws: Aws, region: str) -> str | None:
    request = {"Filters": [{"Name": "is-default", "Values": ["true"]}]}
    found = aws.call("ec2", "describe_vpcs", request, region=region)["Vpcs"]
    return str(found[0]["VpcId"]) if found else None


def _default_subnets(aws: Aws, region: str) -> dict[str, str]:
    request = {"Filters": [{"Name": "default-for-az", "Values": ["true"]}]}
    found = aws.call("ec2", "describe_subnets", request, region=region)["Subnets"]
    return {each["AvailabilityZone"]: each["SubnetId"] for each in found}


def _region_json(region: RegionPlan, on_demand: bool) -> dict[str, Any]:
    cheapest = region.cheapest(on_demand)
    return {
        "name": region.name,
        "zones": {zone.name: asdict(zone.spot) for zone in region.zones},
        "on_demand": asdict(region.on_demand),
        "price": asdict(cheapest),
        "quota": asdict(region.quota),
        "image": None if region.image is None else asdict(region.image),
        "obstacles": list(region.obstacles),
    }


def parsed_regions(given: Sequence[str], default: str | None) -> tuple[str, ...]:
    """Return the command line's regions, else the session's own, else us-east-1.

    Each appears once, in order; `--region a,b` means the same as `--region a --region b`.
    """
    asked = [part.strip() for each in given for part in each.split(",") if part.strip()]
    return tuple(dict.fromkeys(asked or [default or "us-east-1"]))
