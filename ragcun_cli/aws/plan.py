"""A plan: everything that a launch is based on, what it would cost, and what prevents it."""

from __future__ import annotations

import datetime
import math
from dataclasses import asdict, dataclass
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.estimates import JobEstimate
from ragcun_cli.aws.image import Image
from ragcun_cli.aws.instances import InstanceType, capacity_blocks_note
from ragcun_cli.aws.job import Job
from ragcun_cli.aws.launch_record import Attempt, LaunchRequest, as_time
from ragcun_cli.aws.prices import MINUTES_AFTER, PUBLIC_ADDRESS_DOLLARS, UNKNOWN, Price, disk_dollars
from ragcun_cli.aws.quota import Quota
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.recipe.estimates import Estimate

LEAST_HOURS = 0.5  # that --max-hours may be


@dataclass(frozen=True)
class Zone:
    """A zone with a subnet where a machine may start."""

    name: str
    subnet: str
    spot: Price


@dataclass(frozen=True)
class RegionPlan:
    """One region. obstacles: why no machine is available there; empty if one may be. needs_public_address: whether its
    machines reach the internet by an address of their own.
    """

    name: str
    zones: tuple[Zone, ...]
    vpc: str
    on_demand: Price
    quota: Quota
    image: Image | None
    obstacles: tuple[str, ...]
    needs_public_address: bool = True

    def cheapest(self, on_demand: bool) -> Price:
        """Return what a machine costs per hour there; for spot, in the cheapest zone."""
        if on_demand:
            return self.on_demand
        known = [zone.spot for zone in self.zones if zone.spot.dollars is not None]
        return min(known, key=lambda price: price.dollars or 0.0, default=UNKNOWN)


@dataclass(frozen=True)
class LaunchPlan:
    """Everything that a launch is based on.

    disk, cache_gib: GiB of each machine's disk, and of it for what can be recomputed. partition: AWS's separate cloud.
    refusals: what the account lacks, wherever the machine is. remarks: what could not be checked.
    """

    wishes: LaunchRequest
    job: Job
    account: str
    user: str
    bucket: str
    instance: InstanceType
    regions: tuple[RegionPlan, ...]
    disk: int
    cache_gib: int
    estimate: JobEstimate
    partition: str = "aws"
    refusals: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

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
        return None if price is None else self.cost_at(price, hours)

    def cost_of_training(self, estimate: Estimate) -> float | None:
        """Return the dollars for one training's share of the machine, or None if unknown."""
        whole = None if estimate.seconds is None else self.cost_of(estimate.seconds / 3600)
        return None if whole is None else whole * self.estimate.share

    def knows_spot_price(self) -> bool:
        """Return whether the first usable region's spot price is known."""
        region = next(iter(self.usable() or self.regions), None)
        return region is not None and region.cheapest(on_demand=False).dollars is not None

    def maximum_cost(self) -> float | None:
        """Return the dollars if all --max-hours are used at the highest on-demand price, and the schedule outside the
        machine has to end it; spot never costs more."""
        known = [region.on_demand.dollars for region in self.regions if region.on_demand.dollars is not None]
        return self.cost_at(max(known), self.wishes.max_hours + MINUTES_AFTER / 60) if known else None

    def cost_at(self, dollars_an_hour: float, hours: float) -> float:
        address = PUBLIC_ADDRESS_DOLLARS if any(region.needs_public_address for region in self.regions) else 0.0
        return self.wishes.nodes * (dollars_an_hour + disk_dollars(self.disk) + address) * hours

    @property
    def capacity_blocks(self) -> str:
        """What to do about a type that AWS sells mostly in Capacity Blocks; empty for others."""
        return capacity_blocks_note(self.instance)

    def obstacles(self) -> list[str]:
        """List what prevents the launch; empty if nothing known does."""
        found = list(self.refusals)
        market = "on-demand" if self.wishes.on_demand else "spot"
        if market not in self.instance.markets:
            sold = ", ".join(self.instance.markets) or "in no way that ragcun knows"
            found.append(f"--instance {self.instance.name}: AWS sells it {sold}, not {market}. {self.capacity_blocks}")
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
        if not most:
            return ""
        billed = self.wishes.max_hours + MINUTES_AFTER / 60
        fitting = billed * limit / most - MINUTES_AFTER / 60
        return f"--max-hours {math.floor(10 * fitting) / 10:g} would fit; or " if fitting >= LEAST_HOURS else ""

    def warnings(self) -> list[str]:
        """List what does not prevent the launch but should be known."""
        found = []
        hours = self.hours()
        if hours is not None and hours > self.wishes.max_hours:
            found.append(
                f"expected hours ({hours:.1f}) exceed --max-hours ({self.wishes.max_hours:g}): the run would be "
                "stopped early, with its progress saved"
            )
        if self.capacity_blocks:
            found.append(self.capacity_blocks)
        found += self._idle_gpus()
        if not self.account:
            return [*found, "AWS was not asked: prices are from ragcun's table, quotas and capacity unknown"]
        found += self.remarks
        if self.wishes.email is None:
            found.append("no budget alert: --email ADDRESS adds one")
        for region in self.usable():
            if region.quota.held is None:
                found.append(f"{region.name}: AWS does not say how large the quota {region.quota.name!r} is")
            if not self.wishes.on_demand and region.cheapest(False).dollars is None:
                found.append(f"{region.name}: no spot price is known; there may be no spot machines of this type")
        return found

    def _idle_gpus(self) -> list[str]:
        """Say how many GPUs have no training, what that costs, and what would use them."""
        gpus, trainings, seconds = self.instance.gpus, self.job.runs, self.estimate.parts.get("training")
        idle = gpus - trainings
        if not 1 < trainings < gpus or self.wishes.nodes > 1 or seconds is None:
            return []
        cost = self.cost_of(seconds / 3600)
        dollars = "" if cost is None else f", ${cost * idle / gpus:,.2f} of the cost"
        more = gpus // trainings
        seeds = (
            f" --seeds {','.join(map(str, range(more)))} trains {trainings * more} in the same time;"
            if more > 1
            else ""
        )
        return [
            f"{idle} of {gpus} GPUs are idle while {trainings} train ({seconds / 3600:.1f} hours{dollars}):{seeds} "
            "`ragcun aws plan --compare` shows cheaper machines"
        ]

    def creates(self) -> list[str]:
        """Describe what the launch creates."""
        name, run, several = names.resource_name(self.run), self.run, self.wishes.nodes > 1
        group = "security group and " if self.wishes.security_group is None else ""
        made = [
            f"bucket {self.bucket} (shared by all runs, and kept), objects below {self.prefix}"
            if self.wishes.bucket is None
            else f"objects below {self.prefix} in your bucket {self.bucket}",
            f"roles {name} and {names.deadline_role_name(run)}, instance profile {name}",
            f"log group {names.log_group_name(run)}",
            f"{group}launch template {name}, in the region where it starts",
            f"{self.wishes.nodes} x {self.instance.name}, {'on demand' if self.wishes.on_demand else 'spot'}, "
            f"with a disk of {self.disk} GiB{' each' if several else ''}",
            f"a schedule that ends {'them' if several else 'it'} {MINUTES_AFTER} minutes after --max-hours",
        ]
        if several:
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
            "cache_gib": self.cache_gib,
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


def require_launchable(plan: LaunchPlan) -> None:
    """Refuse a launch that is known to fail.

    Raises:
        EnvironmentUnfit: naming every obstacle.
    """
    if obstacles := plan.obstacles():
        raise EnvironmentUnfit("this cannot be launched:\n" + "\n".join(f"  {each}" for each in obstacles))


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


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt's fields for `--json`."""
    return {**asdict(attempt), "ended_at_the_latest": latest_end(attempt)}


def latest_end(attempt: Attempt) -> str:
    """Return when an attempt's machines are ended at the latest, by the schedule outside them."""
    return (as_time(attempt.end) + datetime.timedelta(minutes=MINUTES_AFTER)).isoformat()
