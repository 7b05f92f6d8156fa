"""Compare the known machines for one job: hours, dollars and idle GPUs of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragcun_cli.aws.plan import LaunchPlan


@dataclass(frozen=True)
class Comparison:
    """One machine for the job. dollars: at its market's price, None if unknown; idle: GPUs without a training; problem:
    why it cannot be launched, or what stops it early; empty if it can."""

    instance: str
    described: str
    hours: float | None
    spot: float | None
    on_demand: float | None
    idle: int
    problem: str

    @property
    def is_possible(self) -> bool:
        """Whether nothing known prevents a launch that finishes."""
        return not self.problem

    def least(self) -> float:
        """Return the lower of the two prices, infinite if neither is known."""
        known = [each for each in (self.spot, self.on_demand) if each is not None]
        return min(known, default=float("inf"))


def compare(plans: Sequence[LaunchPlan]) -> list[Comparison]:
    """Return the machines of the plans, the cheapest first, and those that cannot be launched last.

    The hours are the plan's expected ones; --max-hours does not shorten them.
    """
    found = [_comparison(plan) for plan in plans]
    return sorted(found, key=lambda each: (not each.is_possible, each.least()))


def _comparison(plan: LaunchPlan) -> Comparison:
    hours, trainings = plan.hours(), plan.job.runs
    region = next(iter(plan.usable() or plan.regions), None)
    spot = region.cheapest(on_demand=False).dollars if region else None
    on_demand = region.on_demand.dollars if region else None
    return Comparison(
        instance=plan.instance.name,
        described=plan.instance.described(),
        hours=hours,
        spot=_dollars(plan, spot, hours),
        on_demand=_dollars(plan, on_demand, hours),
        idle=max(0, plan.instance.gpus - trainings) if trainings > 1 else 0,
        problem=_problem(plan, hours),
    )


def _dollars(plan: LaunchPlan, price: float | None, hours: float | None) -> float | None:
    return None if price is None or hours is None else plan.cost_at(price, hours)


def _problem(plan: LaunchPlan, hours: float | None) -> str:
    if obstacles := plan.obstacles():
        return obstacles[0]
    if hours is not None and hours > plan.wishes.max_hours:
        return f"takes more than --max-hours {plan.wishes.max_hours:g}"
    return ""
