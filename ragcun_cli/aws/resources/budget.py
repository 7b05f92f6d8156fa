"""A budget that mails the user as the run's cost grows, if there is an address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import GLOBAL, Aws
from ragcun_cli.aws.plan import LaunchPlan
from ragcun_cli.aws.resources.kind import Found, Kind, Making, Where

SHARES = (50.0, 80.0, 100.0)


def build_budget(plan: LaunchPlan, dollars: float) -> dict[str, Any]:
    """Build the budgets:CreateBudget request: email at 50, 80 and 100 % of the run's maximum cost, by its tag."""
    assert plan.wishes.email is not None
    subscriber = {"SubscriptionType": "EMAIL", "Address": plan.wishes.email}
    return {
        "AccountId": plan.account,
        "Budget": {
            "BudgetName": names.resource_name(plan.run),
            "BudgetLimit": {"Amount": f"{dollars:.2f}", "Unit": "USD"},
            "TimeUnit": "MONTHLY",
            "BudgetType": "COST",
            "CostFilters": {"TagKeyValue": [f"user:{names.RUN_TAG}${plan.run}"]},
        },
        "NotificationsWithSubscribers": [
            {
                "Notification": {
                    "NotificationType": "ACTUAL",
                    "ComparisonOperator": "GREATER_THAN",
                    "Threshold": share,
                    "ThresholdType": "PERCENTAGE",
                },
                "Subscribers": [subscriber],
            }
            for share in SHARES
        ],
    }


def _limit(plan: LaunchPlan) -> float | None:
    return plan.wishes.max_cost or plan.maximum_cost()


def _wanted(plan: LaunchPlan) -> bool:
    return plan.wishes.email is not None and _limit(plan) is not None


def _create(making: Making) -> Sequence[str]:
    request = build_budget(making.plan, _limit(making.plan) or 0.0)
    making.aws.ask("budgets", "create_budget", request, region=GLOBAL, absent=("DuplicateRecordException",))
    return [names.resource_name(making.plan.run)]


def _find(aws: Aws, region: str, run: str | None) -> Iterator[Found]:
    if run is not None:
        yield Found("budget", names.resource_name(run), "", run)
        return
    request = {"AccountId": aws.account()[0]}
    for entry in aws.pages("budgets", "describe_budgets", request, region=GLOBAL, key="Budgets"):
        name = entry["BudgetName"]
        if name.startswith(names.PREFIX):
            yield Found("budget", name, "", name.removeprefix(names.PREFIX))


def _remove(aws: Aws, found: Found) -> None:
    request = {"AccountId": aws.account()[0], "BudgetName": found.id}
    aws.ask("budgets", "delete_budget", request, region=GLOBAL, absent=("NotFoundException",))


BUDGET = Kind("budget", Where.ACCOUNT, names.resource_name, _find, _remove, _create, wanted=_wanted)
