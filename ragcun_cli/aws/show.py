"""Describe a plan in words."""

from __future__ import annotations

from ragcun_cli.aws.job import Job
from ragcun_cli.aws.plan import LaunchPlan, RegionPlan
from ragcun_cli.aws.prices import MINUTES_AFTER, Price
from ragcun_cli.quantities import shown_bytes
from ragcun_cli.recipe.estimates import Estimate


def plan_lines(plan: LaunchPlan) -> list[str]:
    """Return the lines of `aws plan`: machines, regions, prices, quotas, cost, and what prevents the launch."""
    wishes, job = plan.wishes, plan.job
    market = "on demand" if wishes.on_demand else "spot"
    lines = [
        f"run          {plan.run}",
        f"machine      {wishes.nodes} x {plan.instance.name} ({plan.instance.described()}), {market}, "
        f"disk {plan.disk} GiB",
        *_work_lines(job),
        f"downloads    {', '.join(job.downloads) or 'nothing'}",
    ]
    if job.inputs:
        lines.append(f"uploads      {', '.join(str(each.path) for each in job.inputs)}")
    if plan.account:
        lines.append(f"account      {plan.account}, as {plan.user}")
    for region in plan.regions:
        lines += ["", *_region_lines(region, wishes.on_demand)]
    hours = plan.hours()
    width = max(len(name) for name in (*plan.estimate.parts, *plan.estimate.trainings))
    lines += [
        "",
        f"expected     {'not known' if hours is None else f'{hours:.1f} hours'}, {_dollars(plan.expected_cost())}"
        + _at_which_price(plan),
        *(f"  {name:<{width}} {_hours(seconds)}" for name, seconds in plan.estimate.parts.items()),
        *(f"  {name:<{width}} {_training(each, plan)}" for name, each in plan.estimate.trainings.items()),
        *(f"  basis      {each}" for each in plan.estimate.basis),
        "  basis      calculated: may be wrong by a factor of two"
        if wishes.triples_per_second is None
        else "  basis      the rest is calculated",
        f"at most      {_span(wishes.max_hours)} and {MINUTES_AFTER} minutes, {_dollars(plan.maximum_cost())} "
        "(all at the on-demand price)",
        "",
        *(f"creates      {each}" for each in plan.creates()),
    ]
    if warnings := plan.warnings():
        lines += ["", *(f"note         {each}" for each in warnings)]
    if obstacles := plan.obstacles():
        lines += ["", *(f"BLOCKED BY   {each}" for each in obstacles)]
    return lines


def _work_lines(job: Job) -> list[str]:
    if job.only_downloads:
        return ["keeps        what it downloads in the bucket, for later launches"]
    seeds = f", seeds {','.join(map(str, job.seeds))}" if job.seeds else ""
    return [
        f"trains       {job.runs} x: {', '.join(recipe.name for recipe in job.recipes)}{seeds}",
        f"scores       {job.datasets} ({job.precision}), also for untouched {', '.join(job.base_models)}",
    ]


def _at_which_price(plan: LaunchPlan) -> str:
    if plan.wishes.on_demand:
        return ""
    return " (at the cheapest zone's price)" if plan.knows_spot_price() else " (on-demand: no spot price is known)"


def _training(estimate: Estimate, plan: LaunchPlan) -> str:
    where = "on one GPU" if plan.estimate.share < 1 else "on this machine"
    cost = _dollars(plan.cost_of_training(estimate))
    return (
        f"{_hours(estimate.seconds)} {where}, {cost}, memory {shown_bytes(estimate.memory)}, "
        f"disk {shown_bytes(estimate.disk)}, {estimate.tokens / 1e6:,.3g} million tokens"
    )


def _region_lines(region: RegionPlan, on_demand: bool) -> list[str]:
    lines = [f"region       {region.name}", f"  on demand  {_price(region.on_demand)}"]
    if not on_demand:
        lines += [f"  spot       {zone.name}: {_price(zone.spot)}" for zone in region.zones]
    quota = region.quota
    held = "not known" if quota.held is None else f"{quota.held:g} granted, {quota.used} in use"
    lines.append(f"  quota      {quota.code or 'code not known'} {quota.name}: {quota.needed} vCPU needed, {held}")
    if region.image is not None:
        lines.append(f"  image      {region.image.id} {region.image.name} ({region.image.found})")
    return lines + [f"  obstacle   {obstacle}" for obstacle in region.obstacles]


def _price(price: Price) -> str:
    return "not known" if price.dollars is None else f"${price.dollars:.4g}/h ({price.source})"


def _hours(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds / 3600:.1f} hours"


def _span(hours: float) -> str:
    return "1 hour" if hours == 1 else f"{hours:g} hours"


def _dollars(amount: float | None) -> str:
    return "cost not known" if amount is None else f"${amount:,.2f}"
