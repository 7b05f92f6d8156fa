"""Remove what a run has on AWS, by its names and tags. Each function ignores what does not exist."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial

from ragcun_cli.aws import names
from ragcun_cli.aws.build.identity import POLICY_NAME
from ragcun_cli.aws.calls import GLOBAL, Aws, AwsError
from ragcun_cli.aws.machines import end_machines
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.aws.rollback import Orphan

NO_ENTITY = ("NoSuchEntity",)
NO_TEMPLATE = ("InvalidLaunchTemplateId.NotFound",)
NO_GROUP = ("InvalidGroup.NotFound", "InvalidGroupId.Malformed")
NO_PLACEMENT = ("InvalidPlacementGroup.Unknown",)
IN_USE = ("DependencyViolation", "InvalidPlacementGroup.InUse")
NO_RESOURCE = ("ResourceNotFoundException", "NotFoundException")
SECONDS_FOR_A_GROUP = 120.0  # AWS releases a group some time after its last machine is gone
SECONDS_BETWEEN_TRIES = 5.0


def remove_role(aws: Aws, role: str) -> None:
    """Remove a role of ours with its policy."""
    policy = {"RoleName": role, "PolicyName": POLICY_NAME}
    aws.ask("iam", "delete_role_policy", policy, region=GLOBAL, absent=NO_ENTITY)
    aws.ask("iam", "delete_role", {"RoleName": role}, region=GLOBAL, absent=NO_ENTITY)


def remove_profile(aws: Aws, run: str) -> None:
    """Remove the instance profile but keep its role."""
    profile = {"InstanceProfileName": names.resource_name(run)}
    found = aws.ask("iam", "get_instance_profile", profile, region=GLOBAL, absent=NO_ENTITY)
    for role in found["InstanceProfile"]["Roles"] if found else []:
        both = {**profile, "RoleName": role["RoleName"]}
        aws.ask("iam", "remove_role_from_instance_profile", both, region=GLOBAL, absent=NO_ENTITY)
    aws.ask("iam", "delete_instance_profile", profile, region=GLOBAL, absent=NO_ENTITY)


def remove_launch_template(aws: Aws, run: str, region: str) -> None:
    """Remove the run's launch template, found by its tag."""
    request = {"Filters": [{"Name": f"tag:{names.RUN_TAG}", "Values": [run]}]}
    for found in aws.call("ec2", "describe_launch_templates", request, region=region)["LaunchTemplates"]:
        doomed = {"LaunchTemplateId": found["LaunchTemplateId"]}
        aws.ask("ec2", "delete_launch_template", doomed, region=region, absent=NO_TEMPLATE)


def find_security_group(aws: Aws, run: str, region: str) -> str | None:
    """Return the id of the run's security group, found by its tag."""
    request = {"Filters": [{"Name": f"tag:{names.RUN_TAG}", "Values": [run]}]}
    found = aws.call("ec2", "describe_security_groups", request, region=region)["SecurityGroups"]
    return str(found[0]["GroupId"]) if found else None


def remove_security_group(aws: Aws, run: str, region: str) -> None:
    """Remove the security group after the machines: AWS keeps it until they are gone."""
    group = find_security_group(aws, run, region)
    if group is not None:
        request = {"GroupId": group}
        _while_in_use(lambda: aws.ask("ec2", "delete_security_group", request, region=region, absent=NO_GROUP))


def remove_placement_group(aws: Aws, run: str, region: str) -> None:
    """Remove the placement group after the machines."""
    request = {"GroupName": names.resource_name(run)}
    _while_in_use(lambda: aws.ask("ec2", "delete_placement_group", request, region=region, absent=NO_PLACEMENT))


def remove_schedule(aws: Aws, name: str, region: str) -> None:
    """Remove one schedule that ends machines."""
    aws.ask("scheduler", "delete_schedule", {"Name": name}, region=region, absent=NO_RESOURCE)


def remove_log_group(aws: Aws, run: str, region: str) -> None:
    """Remove the log group with all its streams."""
    request = {"logGroupName": names.log_group_name(run)}
    aws.ask("logs", "delete_log_group", request, region=region, absent=NO_RESOURCE)


def remove_budget(aws: Aws, account: str, run: str) -> None:
    """Remove the budget with its notifications."""
    request = {"AccountId": account, "BudgetName": names.resource_name(run)}
    aws.ask("budgets", "delete_budget", request, region=GLOBAL, absent=("NotFoundException",))


def remove_objects(record: RunRecord) -> int:
    """Remove all the run's objects; return how many. launch.json goes last: until then the run can be found."""
    store, caches = record.store(), record.caches()
    keys = sorted(store.keys(""), key=lambda key: key == "launch.json")
    cached = caches.keys("")
    try:
        caches.delete(cached)
        store.delete(keys)
    except OSError as error:
        raise AwsError(str(error)) from None
    return len(keys) + len(cached)


def remove_bucket_if_empty(aws: Aws, bucket: str, region: str) -> bool:
    """Remove the bucket if it is empty; return whether it is gone."""
    found = aws.call("s3", "list_objects_v2", {"Bucket": bucket, "MaxKeys": 1}, region=region)
    if found.get("KeyCount", 0):
        return False
    aws.ask("s3", "delete_bucket", {"Bucket": bucket}, region=region, absent=("NoSuchBucket", "BucketNotEmpty"))
    return True


def schedules_of(aws: Aws, run: str, region: str) -> list[str]:
    """List the names of a run's schedules."""
    prefix = f"{names.PREFIX}{run}-"
    found = aws.pages("scheduler", "list_schedules", {"NamePrefix": prefix}, region=region, key="Schedules")
    # `ragcun-isotropy-2-1-0` belongs to run `isotropy-2`, and `ragcun-isotropy-2-0` to run `isotropy`.
    return [each["Name"] for each in found if re.fullmatch(r"\d+-\d+", each["Name"].removeprefix(prefix))]


def remove_machinery(aws: Aws, run: str, home: str, regions: list[str], account: str, has_budget: bool) -> list[Orphan]:
    """Remove everything but the objects, machines first; return what could not be removed."""
    steps: list[tuple[str, Callable[[], object]]] = []
    for region in regions:
        steps += [
            (f"machines in {region}", partial(end_machines, aws, run, region)),
            (f"schedules in {region}", partial(_remove_schedules, aws, run, region)),
            (f"launch template in {region}", partial(remove_launch_template, aws, run, region)),
            (f"security group in {region}", partial(remove_security_group, aws, run, region)),
            (f"placement group in {region}", partial(remove_placement_group, aws, run, region)),
        ]
    steps += [
        ("instance profile", lambda: remove_profile(aws, run)),
        ("role", lambda: remove_role(aws, names.resource_name(run))),
        ("deadline role", lambda: remove_role(aws, names.deadline_role_name(run))),
        ("log group", lambda: remove_log_group(aws, run, home)),
    ]
    if has_budget:  # otherwise not requested: many users may not see billing
        steps.append(("budget", lambda: remove_budget(aws, account, run)))
    left = []
    for what, remove in steps:
        try:
            remove()
        except AwsError as error:
            left.append(Orphan(f"{what} of run {run}", error.message, f"ragcun aws terminate {run}"))
    return left


def _remove_schedules(aws: Aws, run: str, region: str) -> None:
    for name in schedules_of(aws, run, region):
        remove_schedule(aws, name, region)


def _while_in_use(remove: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS_FOR_A_GROUP
    while True:
        try:
            remove()
            return
        except AwsError as error:
            if error.code not in IN_USE or time.monotonic() > deadline:
                raise
        time.sleep(SECONDS_BETWEEN_TRIES)
