"""Requests for the machines: who may reach them (nobody), how they are set up, and the fleet that starts them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.plan import LaunchPlan, RegionPlan

GP3_THROUGHPUT, GP3_IOPS = 500, 6000  # MiB/s and operations per second: 1.3 GB checkpoints take seconds


def build_security_group(plan: LaunchPlan, region: RegionPlan) -> dict[str, Any]:
    """Build the ec2:CreateSecurityGroup request: no inbound rule, and AWS's default outbound rule."""
    return {
        "GroupName": names.resource_name(plan.run),
        "Description": f"ragcun run {plan.run}: no inbound traffic",
        "VpcId": region.vpc,
        "TagSpecifications": _tags("security-group", plan),
    }


def build_node_traffic(group: str) -> dict[str, Any]:
    """Build the ec2:AuthorizeSecurityGroupIngress request: of several nodes, each may reach only its group."""
    return {"GroupId": group, "IpPermissions": [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]}


def build_placement_group(plan: LaunchPlan) -> dict[str, Any]:
    """Build the ec2:CreatePlacementGroup request, which places nodes close to each other."""
    return {
        "GroupName": names.resource_name(plan.run),
        "Strategy": "cluster",
        "TagSpecifications": _tags("placement-group", plan),
    }


def build_launch_template(plan: LaunchPlan, region: RegionPlan, group: str, user_data: str) -> dict[str, Any]:
    """Build the ec2:CreateLaunchTemplate request: IMDSv2 only, an encrypted disk removed with the machine, no key pair,
    and a shutdown that ends the machine."""
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
    data: dict[str, Any] = {
        "ImageId": region.image.id,
        "InstanceType": plan.instance.name,
        "IamInstanceProfile": {"Name": name},
        "SecurityGroupIds": [group],
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "disabled",
        },
        "BlockDeviceMappings": [{"DeviceName": region.image.root, "Ebs": disk}],
        "InstanceInitiatedShutdownBehavior": "terminate",
        "UserData": base64.b64encode(user_data.encode()).decode(),
        "TagSpecifications": [*_tags("instance", plan), *_tags("volume", plan), *_tags("network-interface", plan)],
    }
    if plan.wishes.nodes > 1:
        data["Placement"] = {"GroupName": name}
    return {
        "LaunchTemplateName": name,
        "LaunchTemplateData": data,
        "TagSpecifications": _tags("launch-template", plan),
    }


def build_fleet(plan: LaunchPlan, region: RegionPlan, template: str, attempt: int, tries: int) -> dict[str, Any]:
    """Build the ec2:CreateFleet request, type instant: all machines at once or none, across a region's zones.

    AWS recommends it over RunInstances, which tries one zone. tries: how often AWS has refused it before.
    """
    overrides = [{"InstanceType": plan.instance.name, "SubnetId": zone.subnet} for zone in region.zones]
    config = {"LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "1"}, "Overrides": overrides}
    nodes = plan.wishes.nodes
    # With MinTargetCapacity, a fleet that cannot get all nodes gets none; all nodes are in one zone.
    together = {"SingleInstanceType": True, "SingleAvailabilityZone": True, "MinTargetCapacity": nodes}
    request: dict[str, Any] = {
        "Type": "instant",
        "ClientToken": names.client_token(plan.run, attempt, template, tries),
        "LaunchTemplateConfigs": [config],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": nodes,
            "DefaultTargetCapacityType": "on-demand" if plan.wishes.on_demand else "spot",
        },
        "TagSpecifications": [*_tags("fleet", plan), *_tags("instance", plan)],
    }
    if plan.wishes.on_demand:
        return request | {"OnDemandOptions": {"AllocationStrategy": "lowest-price", **together}}
    return request | {
        "SpotOptions": {
            "AllocationStrategy": "price-capacity-optimized",
            "InstanceInterruptionBehavior": "terminate",
            **together,
        }
    }


def build_machines_query(run: str, states: Sequence[str]) -> dict[str, Any]:
    """Build the ec2:DescribeInstances request for machines with the run's tag."""
    return {
        "Filters": [
            {"Name": f"tag:{names.RUN_TAG}", "Values": [run]},
            {"Name": "instance-state-name", "Values": list(states)},
        ]
    }


def _tags(kind: str, plan: LaunchPlan) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": names.tags_of(plan.run)}]
