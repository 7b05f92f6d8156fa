"""Create the parts of a launch one by one, and register each part's removal before requesting it."""

from __future__ import annotations

import datetime
import shlex
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.build import brakes, identity, machine
from ragcun_cli.aws.calls import GLOBAL, Aws, AwsError
from ragcun_cli.aws.machines import end_machines, find_machines
from ragcun_cli.aws.plan import LaunchPlan, RegionPlan
from ragcun_cli.aws.record import Attempt
from ragcun_cli.aws.removal import (
    find_security_group,
    remove_budget,
    remove_launch_template,
    remove_log_group,
    remove_placement_group,
    remove_profile,
    remove_role,
    remove_schedule,
    remove_security_group,
)
from ragcun_cli.aws.rollback import Rollback
from ragcun_cli.errors import EnvironmentUnfit, UsageError

# No machine of this type is available there now; another zone or region may have one.
NO_CAPACITY = {
    "InsufficientInstanceCapacity", "InsufficientCapacity", "UnfulfillableCapacity", "InsufficientHostCapacity",
    "SpotMaxPriceTooLow", "InsufficientFreeAddressesInSubnet", "Unsupported", "UnsupportedOperation",
    "InvalidFleetConfiguration",
}  # fmt: skip
# The account's quota there is used up.
NO_QUOTA = {"VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "InstanceLimitExceeded", "MaxSpotFleetRequestCount"}
SECONDS_FOR_A_ROLE = 90.0  # until a new role has propagated
SECONDS_BETWEEN_TRIES = 5.0
SECONDS_TO_APPEAR = 60.0  # for a machine to appear whose request got no response
SCRIPT = Path(__file__).resolve().parent / "machine" / "boot.sh"
MARK = "@SETTINGS@"
LARGEST = 16 * 1024  # bytes, AWS's limit


class NoMachine(EnvironmentUnfit):
    """No machine was available in one region, or in any of them."""

    title = "aws"


def require_no_parts(aws: Aws, plan: LaunchPlan) -> None:
    """Refuse a new run if its parts exist: they may belong to another run, which must not be affected.

    Raises:
        UsageError: if its instance profile exists.
    """
    profile = {"InstanceProfileName": names.resource_name(plan.run)}
    if aws.ask("iam", "get_instance_profile", profile, region=GLOBAL, absent=("NoSuchEntity",)) is not None:
        raise UsageError(
            f"--run {plan.run}: the account has parts of another run of this name, whose objects are elsewhere or gone",
            "Choose another name (--run NAME). `ragcun aws gc` lists the parts; --delete removes unused ones.",
        )


def create_log(aws: Aws, plan: LaunchPlan, rollback: Rollback) -> None:
    """Create the run's log group."""
    group = names.log_group_name(plan.run)
    rollback.add(
        f"log group {group}",
        f"aws logs delete-log-group --log-group-name {group} --region {plan.home}",
        partial(remove_log_group, aws, plan.run, plan.home),
    )
    existing = ("ResourceAlreadyExistsException",)
    aws.ask("logs", "create_log_group", brakes.build_log_group(plan), region=plan.home, absent=existing)
    aws.call("logs", "put_retention_policy", brakes.build_log_retention(plan), region=plan.home)


def create_roles(aws: Aws, plan: LaunchPlan, rollback: Rollback) -> None:
    """Create the machines' role and profile, and the schedules' role."""
    name, deadline = names.resource_name(plan.run), names.deadline_role_name(plan.run)
    existing = ("EntityAlreadyExists",)
    for role, request, policy in (
        (name, identity.build_role(plan), identity.build_role_policy(plan)),
        (deadline, identity.build_deadline_role(plan), identity.build_deadline_policy(plan)),
    ):
        rollback.add(f"role {role}", f"ragcun aws terminate {plan.run}", partial(remove_role, aws, role))
        aws.ask("iam", "create_role", request, region=GLOBAL, absent=existing)
        aws.call("iam", "put_role_policy", policy, region=GLOBAL)
    rollback.add(f"instance profile {name}", f"ragcun aws terminate {plan.run}", partial(remove_profile, aws, plan.run))
    aws.ask("iam", "create_instance_profile", identity.build_instance_profile(plan), region=GLOBAL, absent=existing)
    # A profile has at most one role: if there is one, it is ours.
    request = identity.build_profile_role(plan)
    aws.ask("iam", "add_role_to_instance_profile", request, region=GLOBAL, absent=("LimitExceeded",))


def create_budget(aws: Aws, plan: LaunchPlan, rollback: Rollback) -> None:
    """Create the budget, if there is an email address to notify."""
    limit = plan.wishes.max_cost or plan.maximum_cost()
    if plan.wishes.email is None or limit is None:
        return
    name = names.resource_name(plan.run)
    rollback.add(
        f"budget {name}",
        f"aws budgets delete-budget --account-id {plan.account} --budget-name {name}",
        partial(remove_budget, aws, plan.account, plan.run),
    )
    request = brakes.build_budget(plan, limit)
    aws.ask("budgets", "create_budget", request, region=GLOBAL, absent=("DuplicateRecordException",))


def start_in(
    aws: Aws, plan: LaunchPlan, region: RegionPlan, attempt: Attempt, code: str, hours: float, rollback: Rollback
) -> Attempt:
    """Create group, template, machines and schedules in one region; return the attempt with its machines.

    Raises:
        NoMachine: if none is available.
        AwsError: if AWS refuses something else.
    """
    group = _create_group(aws, plan, region, rollback)
    if plan.wishes.nodes > 1:
        _create_placement(aws, plan, region, rollback)
    end = datetime.datetime.fromisoformat(attempt.end)
    user_data = build_user_data(plan, code, attempt.number, end.timestamp(), hours)
    template = _create_template(aws, plan, region, group, user_data, rollback)
    cure = f"ragcun aws terminate {plan.run}; or look for tag {names.RUN_TAG}={plan.run} in the EC2 console"
    what = f"machines of run {plan.run} in {region.name}"
    rollback.add(what, cure, partial(end_machines, aws, plan.run, region.name))
    try:
        instances = _create_machines(aws, plan, region, template, attempt.number)
    except (AwsError, KeyboardInterrupt) as error:
        if not isinstance(error, AwsError) or error.is_unsettled:
            rollback.add(what, cure, partial(_end_late_machines, aws, plan.run, region.name))
        raise
    for node, instance in enumerate(instances):
        _create_schedule(aws, plan, region, attempt.number, node, instance, end, rollback)
    zone = next((each.zone for each in find_machines(aws, plan.run, region.name) if each.id in instances), "")
    prices = {each.name: each.spot.dollars for each in region.zones}
    dollars = region.on_demand.dollars if plan.wishes.on_demand else prices.get(zone)
    return Attempt(attempt.number, region.name, zone, tuple(instances), dollars, attempt.started, attempt.end)


def _create_group(aws: Aws, plan: LaunchPlan, region: RegionPlan, rollback: Rollback) -> str:
    group = find_security_group(aws, plan.run, region.name)
    if group is None:
        name = names.resource_name(plan.run)
        rollback.add(
            f"security group {name} in {region.name}",
            f"ragcun aws terminate {plan.run}",
            partial(remove_security_group, aws, plan.run, region.name),
        )
        request = machine.build_security_group(plan, region)
        group = str(aws.call("ec2", "create_security_group", request, region=region.name)["GroupId"])
    if plan.wishes.nodes > 1:
        request = machine.build_node_traffic(group)
        existing = ("InvalidPermission.Duplicate",)
        aws.ask("ec2", "authorize_security_group_ingress", request, region=region.name, absent=existing)
    return group


def _create_placement(aws: Aws, plan: LaunchPlan, region: RegionPlan, rollback: Rollback) -> None:
    rollback.add(
        f"placement group {names.resource_name(plan.run)} in {region.name}",
        f"ragcun aws terminate {plan.run}",
        partial(remove_placement_group, aws, plan.run, region.name),
    )
    existing = ("InvalidPlacementGroup.Duplicate",)
    request = machine.build_placement_group(plan)
    aws.ask("ec2", "create_placement_group", request, region=region.name, absent=existing)


def _create_template(
    aws: Aws, plan: LaunchPlan, region: RegionPlan, group: str, user_data: str, rollback: Rollback
) -> str:
    """Create a new template for each attempt, because its user data contain the attempt's number."""
    rollback.add(
        f"launch template {names.resource_name(plan.run)} in {region.name}",
        f"ragcun aws terminate {plan.run}",
        partial(remove_launch_template, aws, plan.run, region.name),
    )
    remove_launch_template(aws, plan.run, region.name)
    request = machine.build_launch_template(plan, region, group, user_data)
    answer = aws.call("ec2", "create_launch_template", request, region=region.name)
    return str(answer["LaunchTemplate"]["LaunchTemplateId"])


def _create_machines(aws: Aws, plan: LaunchPlan, region: RegionPlan, template: str, number: int) -> list[str]:
    def ask(tries: int) -> dict[str, Any]:
        request = machine.build_fleet(plan, region, template, number, tries)
        return aws.call("ec2", "create_fleet", request, region=region.name)

    answer = _once_roles_are_known(ask)
    ids = [each for part in answer.get("Instances", []) for each in part["InstanceIds"]]
    if len(ids) == plan.wishes.nodes:
        return ids
    errors = {each["ErrorCode"]: each.get("ErrorMessage", "") for each in answer.get("Errors", [])}
    said = "; ".join(f"{code}: {message}" for code, message in errors.items()) or "AWS gave no reason"
    if errors and not set(errors) <= NO_CAPACITY | NO_QUOTA:
        raise AwsError(f"{region.name}: {said}", "", next(iter(errors)))
    raise NoMachine(_no_machine(plan, region, said, bool(set(errors) & NO_QUOTA)))


def _no_machine(plan: LaunchPlan, region: RegionPlan, said: str, quota: bool) -> str:
    if quota:
        page = region.quota.increase_page(region.name)
        return f"{region.name}: the quota {region.quota.name!r} ({region.quota.code}) is used up: {said}. Raise: {page}"
    return f"{region.name}: no capacity: {said}"


def _once_roles_are_known(request: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """Retry until EC2 and the scheduler know a role that IAM just created. request: gets the number of refusals."""
    deadline, tries = time.monotonic() + SECONDS_FOR_A_ROLE, 0
    while True:
        try:
            answer = request(tries)
            said = " ".join(each.get("ErrorMessage", "") for each in answer.get("Errors", []))
            if not _is_about_a_role(said) or time.monotonic() > deadline:
                return answer
        except AwsError as error:
            if error.code in NO_CAPACITY | NO_QUOTA:
                return {"Errors": [{"ErrorCode": error.code, "ErrorMessage": error.message}]}
            if not _is_about_a_role(error.message) or time.monotonic() > deadline:
                raise
        tries += 1
        time.sleep(SECONDS_BETWEEN_TRIES)


def _is_about_a_role(said: str) -> bool:
    return "Invalid IAM Instance Profile" in said or "iamInstanceProfile" in said or "assume the role" in said


def _create_schedule(
    aws: Aws,
    plan: LaunchPlan,
    region: RegionPlan,
    number: int,
    node: int,
    instance: str,
    end: datetime.datetime,
    rollback: Rollback,
) -> None:
    name = names.schedule_name(plan.run, number, node)
    rollback.add(
        f"schedule {name} in {region.name}",
        f"aws scheduler delete-schedule --name {name} --region {region.name}",
        partial(remove_schedule, aws, name, region.name),
    )
    request = brakes.build_schedule(plan, number, node, instance, end)
    _once_roles_are_known(lambda tries: aws.call("scheduler", "create_schedule", request, region=region.name))


def _end_late_machines(aws: Aws, run: str, region: str) -> None:
    """Also end machines that appear late: AWS may have started them although its response was lost."""
    deadline = time.monotonic() + SECONDS_TO_APPEAR
    while not end_machines(aws, run, region) and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_TRIES)


def build_user_data(plan: LaunchPlan, code: str, attempt: int, end: float, hours: float) -> str:
    """Build the user data. code: the archive's sha256. end: Unix time when --max-hours runs out, `hours` from now."""
    job, wishes = plan.job, plan.wishes
    settings = {
        "RAGCUN_RUN": plan.run,
        "RAGCUN_ACCOUNT": plan.account,
        "RAGCUN_BUCKET": plan.bucket,
        "RAGCUN_PREFIX": plan.prefix,
        "AWS_DEFAULT_REGION": plan.home,
        "RAGCUN_CODE": code,
        "RAGCUN_ATTEMPT": attempt,
        "RAGCUN_NODES": wishes.nodes,
        "RAGCUN_SEEDS": ",".join(map(str, job.seeds)),
        "RAGCUN_DATASETS": job.datasets,
        "RAGCUN_DOWNLOADS": " ".join(job.downloads),
        "RAGCUN_PRECISION": job.precision,
        "RAGCUN_CACHE_LIMIT": f"{max(plan.disk // 2, 10)}GiB",
        "RAGCUN_GPUS": plan.instance.gpus,
        "RAGCUN_IDLE_MINUTES": wishes.idle_minutes,
        "RAGCUN_MAX_MINUTES": max(1, int(hours * 60)),
        "RAGCUN_END": int(end),
    }
    lines = [f"export {name}={shlex.quote(str(value))}" for name, value in settings.items()]
    text = SCRIPT.read_text(encoding="utf-8").replace(MARK, "\n".join(lines))
    assert len(text.encode()) < LARGEST
    return text
