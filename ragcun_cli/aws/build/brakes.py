"""What ends or announces a run that goes on too long: a schedule outside the machine, a budget; and its log."""

from __future__ import annotations

import datetime
import json
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.plan import LaunchPlan

DAYS_OF_LOG = 90
BUDGET_SHARES = (50.0, 80.0, 100.0)
# After the machine's own timer, which ends it in good order.
MINUTES_AFTER = 15


def build_log_group(plan: LaunchPlan) -> dict[str, Any]:
    """Of logs:CreateLogGroup."""
    return {"logGroupName": names.log_group_name(plan.run), "tags": {names.RUN_TAG: plan.run}}


def build_log_retention(plan: LaunchPlan) -> dict[str, Any]:
    """Of logs:PutRetentionPolicy."""
    return {"logGroupName": names.log_group_name(plan.run), "retentionInDays": DAYS_OF_LOG}


def build_schedule(plan: LaunchPlan, attempt: int, node: int, instance: str, end: datetime.datetime) -> dict[str, Any]:
    """Of scheduler:CreateSchedule: ends one machine once, and then removes itself. end: UTC.

    One for each: EC2 refuses a request that names, beside others, a machine it has forgotten.
    """
    late = end + datetime.timedelta(minutes=MINUTES_AFTER)
    return {
        "Name": names.schedule_name(plan.run, attempt, node),
        "Description": f"ends a machine of ragcun run {plan.run}",
        "ScheduleExpression": f"at({late:%Y-%m-%dT%H:%M:%S})",
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {
            "Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances",
            "RoleArn": f"arn:aws:iam::{plan.account}:role{names.IAM_PATH}{names.deadline_role_name(plan.run)}",
            "Input": json.dumps({"InstanceIds": [instance]}),
            "RetryPolicy": {"MaximumRetryAttempts": 10, "MaximumEventAgeInSeconds": 3600},
        },
    }


def build_budget(plan: LaunchPlan, dollars: float) -> dict[str, Any]:
    """Of budgets:CreateBudget: mail at 50, 80 and 100 % of the most that the run may cost, by its tag."""
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
            for share in BUDGET_SHARES
        ],
    }
