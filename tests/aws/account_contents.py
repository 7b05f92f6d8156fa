"""What there is in the test's account, asked of moto without ragcun's code."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3

from tests.aws.cloud import ACCOUNT, HOME, Cloud

REGIONS = (HOME, "us-west-2")


@cache
def client(service: str, region: str) -> Any:
    """Made once: that takes longer than what it is asked."""
    return boto3.client(service, region_name=region)


def leftovers(cloud: Cloud) -> set[str]:
    """Kinds of things that exist, with the region where there are several; not the bucket, which launches leave."""
    found: set[str] = set()
    for region in REGIONS:
        ec2 = client("ec2", region)
        states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
        if ec2.describe_instances(Filters=states)["Reservations"]:
            found.add(f"machine {region}")
        if [each for each in ec2.describe_security_groups()["SecurityGroups"] if each["GroupName"] != "default"]:
            found.add(f"security group {region}")
        if ec2.describe_launch_templates()["LaunchTemplates"]:
            found.add(f"launch template {region}")
        if client("scheduler", region).list_schedules()["Schedules"]:
            found.add(f"schedule {region}")
    iam, s3 = client("iam", HOME), client("s3", HOME)
    found |= {f"role {each['RoleName']}" for each in iam.list_roles()["Roles"]}
    if iam.list_instance_profiles()["InstanceProfiles"]:
        found.add("instance profile")
    if client("logs", HOME).describe_log_groups()["logGroups"]:
        found.add("log group")
    if client("budgets", HOME).describe_budgets(AccountId=ACCOUNT).get("Budgets"):
        found.add("budget")
    for bucket in s3.list_buckets()["Buckets"]:
        if s3.list_objects_v2(Bucket=bucket["Name"]).get("Contents"):
            found.add("objects")
    if cloud.placement_groups:
        found.add("placement group")
    return found
