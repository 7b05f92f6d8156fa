"""The launch template of an attempt: the machine's image, disk, network and user data."""

from __future__ import annotations

import base64
import shlex
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws
from ragcun_cli.aws.launch_record import as_time
from ragcun_cli.aws.plan import LaunchPlan, RegionPlan
from ragcun_cli.aws.prices import GP3_IOPS, GP3_THROUGHPUT
from ragcun_cli.aws.resources.kind import Found, Kind, Making, Where
from ragcun_cli.aws.resources.tags import run_of, tagged, tags_for

NO_TEMPLATE = ("InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateId.NotFoundException")
SCRIPT = Path(__file__).resolve().parent.parent / "machine" / "boot.sh"
MINUTES, SETTINGS = "@MINUTES@", "@SETTINGS@"
LARGEST = 16 * 1024  # bytes, AWS's limit


def build_launch_template(plan: LaunchPlan, region: RegionPlan, group: str, user_data: str) -> dict[str, Any]:
    """Build the ec2:CreateLaunchTemplate request: IMDSv2 only, an encrypted disk removed with the machine, no key pair,
    a shutdown that ends the machine, and a public address where the subnets need one to reach the internet."""
    assert region.image is not None
    name = names.resource_name(plan.run)
    disk = {
        "VolumeSize": max(plan.disk, region.image.root_gib),
        "VolumeType": "gp3",
        "Throughput": GP3_THROUGHPUT,
        "Iops": GP3_IOPS,
        "Encrypted": True,
        "DeleteOnTermination": True,
    }
    interface = {
        "DeviceIndex": 0,
        "Groups": [group],
        "AssociatePublicIpAddress": region.needs_public_address,
        "DeleteOnTermination": True,
    }
    data: dict[str, Any] = {
        "ImageId": region.image.id,
        "InstanceType": plan.instance.name,
        "IamInstanceProfile": {"Name": name},
        "NetworkInterfaces": [interface],
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "disabled",
        },
        "BlockDeviceMappings": [{"DeviceName": region.image.root, "Ebs": disk}],
        "InstanceInitiatedShutdownBehavior": "terminate",
        "UserData": base64.b64encode(user_data.encode()).decode(),
        "TagSpecifications": [
            *tags_for("instance", plan.run),
            *tags_for("volume", plan.run),
            *tags_for("network-interface", plan.run),
        ],
    }
    if plan.wishes.nodes > 1:
        data["Placement"] = {"GroupName": name}
    return {
        "LaunchTemplateName": name,
        "LaunchTemplateData": data,
        "TagSpecifications": tags_for("launch-template", plan.run),
    }


def build_user_data(making: Making) -> str:
    """Build the user data: boot.sh with where the run is, and when it must end.

    All else the machine reads from launch.json.
    """
    plan, attempt = making.plan, making.attempt
    seconds = (as_time(attempt.end) - as_time(attempt.started)).total_seconds()
    settings = {
        "RAGCUN_RUN": plan.run,
        "RAGCUN_ACCOUNT": plan.account,
        "RAGCUN_BUCKET": plan.bucket,
        "RAGCUN_PREFIX": plan.prefix,
        "AWS_DEFAULT_REGION": plan.home,
        "RAGCUN_CODE": making.code,
        "RAGCUN_ATTEMPT": attempt.number,
    }
    lines = [f"export {name}={shlex.quote(str(value))}" for name, value in settings.items()]
    text = SCRIPT.read_text(encoding="utf-8")
    text = text.replace(MINUTES, str(max(1, int(seconds // 60)))).replace(SETTINGS, "\n".join(lines))
    assert len(text.encode()) < LARGEST
    return text


def _create(making: Making) -> Sequence[str]:
    """Create a new template for each attempt, because its user data contain the attempt's number and end."""
    aws, plan, region = making.aws, making.plan, making.place
    for found in _find(aws, region.name, plan.run):
        _remove(aws, found)
    request = build_launch_template(plan, region, making.group, build_user_data(making))
    request["ClientToken"] = uuid.uuid4().hex  # boto3 repeats a request whose answer was lost
    answer = aws.call("ec2", "create_launch_template", request, region=region.name)
    making.template = str(answer["LaunchTemplate"]["LaunchTemplateId"])
    return [making.template]


def _find(aws: Aws, region: str, run: str | None) -> Iterator[Found]:
    for entry in aws.call("ec2", "describe_launch_templates", tagged(run), region=region)["LaunchTemplates"]:
        yield Found("launch template", entry["LaunchTemplateId"], region, run_of(entry))


def _remove(aws: Aws, found: Found) -> None:
    request = {"LaunchTemplateId": found.id}
    aws.ask("ec2", "delete_launch_template", request, region=found.region, absent=NO_TEMPLATE)


LAUNCH_TEMPLATE = Kind("launch template", Where.REGION, names.resource_name, _find, _remove, _create)
