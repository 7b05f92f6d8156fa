"""Requests for what ends or reports a run that takes too long (a schedule and a budget), and for its log."""

from __future__ import annotations

import datetime
import json
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.plan import LaunchPlan

DAYS_OF_LOG = 90
BUDGET_SHARES = (50.0, 80.0, 100.0)
# After the machine's own timer, which shuts it down cleanly.
MINUTES_AFTER = 15


def build_log_group(plan: LaunchPlan) -> dict[str, Any]:
    """Build the logs:CreateLogGroup request."""
    return {"logGroupName": names.log_group_name(plan.run), "tags": {names.RUN_TAG: plan.run}}


def build_log_retention(plan: LaunchPlan) -> dict[str, Any]:
    """Build the logs:PutRetentionPolicy request."""
    return {"logGroupName": names.log_group_name(plan.run), "retentionInDays": DAYS_OF_LOG}


def build_schedule(plan: LaunchPlan, attempt: int, node: int, instance: str, end: datetime.datetime) -> dict[str, Any]:
    """Build the scheduler:CreateSchedule request: it ends one machine, then removes itself. end: in UTC.

    Each machine has its own, because EC2 refuses a request that includes a machine it no longer knows.
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
            for share in BUDGET_SHARES
        ],
    }
