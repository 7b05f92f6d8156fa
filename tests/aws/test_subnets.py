"""Networks as accounts have them: a way out for the machine, checked before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from ragcun_cli.aws.plan import LaunchPlan
from tests.aws.cloud import HOME, Cloud
from tests.aws.command_answers import refuses
from tests.aws.launch_builders import launch_for, plan_for
from tests.conftest import RunCommand

OUT = "0.0.0.0/0"


def own_network(zones: int = 2) -> tuple[str, list[str], str]:
    """A VPC of the user's with subnets, and a security group in it."""
    ec2 = boto3.client("ec2", region_name=HOME)
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.1.{number}.0/24", AvailabilityZone=f"{HOME}{'ab'[number]}")[
            "Subnet"
        ]["SubnetId"]
        for number in range(zones)
    ]
    group = ec2.create_security_group(GroupName="mine", Description="mine", VpcId=vpc)["GroupId"]
    return vpc, subnets, group


def own_group(subnets: list[str]) -> str:
    """Another group of the subnets' VPC."""
    ec2 = boto3.client("ec2", region_name=HOME)
    vpc = ec2.describe_subnets(SubnetIds=subnets[:1])["Subnets"][0]["VpcId"]
    return str(ec2.create_security_group(GroupName="closed", Description="closed", VpcId=vpc)["GroupId"])


def routes(*tables: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> Callable[[Any], dict[str, Any]]:
    """An answer of DescribeRouteTables: associations and routes of each table."""
    return lambda asked: {"RouteTables": [{"Associations": who, "Routes": ways} for who, ways in tables]}


def way(**to: str) -> list[dict[str, Any]]:
    return [{"DestinationCidrBlock": "10.1.0.0/16", "GatewayId": "local"}, {"DestinationCidrBlock": OUT, **to}]


def home_plan(cloud: Cloud, **changes: Any) -> LaunchPlan:
    return plan_for(cloud, regions=(HOME,), **changes)


@pytest.mark.parametrize(
    ("to", "public", "usable"),
    [
        ({"GatewayId": "igw-1"}, True, True),
        ({"NatGatewayId": "nat-1"}, False, True),
        ({"TransitGatewayId": "tgw-1"}, False, True),
        ({"GatewayId": "igw-1", "State": "blackhole"}, True, False),
        ({"GatewayId": "vgw-1"}, True, False),
    ],
)
def test_the_default_route_decides(cloud: Cloud, to: dict[str, str], public: bool, usable: bool) -> None:
    cloud.answers["DescribeRouteTables"] = routes(([{"Main": True}], way(**to)))
    plan = home_plan(cloud)
    assert bool(plan.usable()) == usable
    if usable:
        assert plan.regions[0].needs_public_address == public
        assert (plan.maximum_cost() or 0) == pytest.approx(10.25 * (21.957642 + plan.cost_at(0.0, 1.0)), abs=1e-6)
    else:
        (obstacle,) = plan.obstacles()
        assert "no route leads from subnet-" in obstacle
        assert "aws ec2 attach-internet-gateway" in obstacle


def test_a_table_of_the_subnets_own_comes_before_the_main_one(cloud: Cloud) -> None:
    _, (first, second), _ = own_network()
    cloud.answers["DescribeRouteTables"] = routes(
        ([{"Main": True}], way(GatewayId="igw-1")), ([{"SubnetId": first}], way(NatGatewayId="nat-1"))
    )
    plan = home_plan(cloud, subnets=(first, second), instance="g5.xlarge")
    assert [zone.subnet for zone in plan.regions[0].zones] == [second]  # not both kinds: one template serves all zones
    assert plan.regions[0].needs_public_address
    cloud.answers["DescribeRouteTables"] = routes(
        ([{"Main": True}], way()), ([{"SubnetId": first}], way(NatGatewayId="nat-1"))
    )
    plan = home_plan(cloud, subnets=(first, second), instance="g5.xlarge")
    assert [zone.subnet for zone in plan.regions[0].zones] == [first]
    assert not plan.regions[0].needs_public_address


def test_own_subnets_and_group_are_used_and_kept(cloud: Cloud, checkout: Path) -> None:
    vpc, subnets, group = own_network()
    launch_for(cloud, checkout, regions=(HOME,), instance="g5.xlarge", subnets=tuple(subnets), security_group=group)
    (template,) = cloud.requests("CreateLaunchTemplate")
    (interface,) = template["LaunchTemplateData"]["NetworkInterfaces"]
    assert interface["Groups"] == [group]
    assert interface["AssociatePublicIpAddress"] is True
    assert cloud.requests("CreateSecurityGroup") == []
    overrides = cloud.requests("CreateFleet")[0]["LaunchTemplateConfigs"][0]["Overrides"]
    assert {each["SubnetId"] for each in overrides} == set(subnets)
    assert vpc


def test_what_is_wrong_with_a_network_is_said(cloud: Cloud) -> None:
    _, subnets, group = own_network()
    ec2 = boto3.client("ec2", region_name=HOME)
    default = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"][0]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"subnets": ("subnet-0",)}, "none of --subnet subnet-0 is there"),
        ({"subnets": (subnets[0], default["SubnetId"])}, "--subnet: the subnets are in several VPCs"),
        ({"subnets": tuple(subnets), "security_group": "sg-0"}, "--security-group sg-0 is not there"),
        ({"subnets": (default["SubnetId"],), "security_group": group}, "is in another VPC"),
    ]
    for changes, expected in cases:
        (obstacle,) = home_plan(cloud, instance="g5.xlarge", **changes).obstacles()
        assert expected in obstacle
    two = home_plan(cloud, instance="p4d.24xlarge", subnets=tuple(subnets), security_group=own_group(subnets), nodes=2)
    assert any("does not let its own members in" in each for each in two.obstacles())
    for protocol, expected in (("tcp", True), ("-1", False)):
        rule = {"IpProtocol": protocol, "UserIdGroupPairs": [{"GroupId": group}]}
        ports = {"FromPort": 0, "ToPort": 65535} if protocol == "tcp" else {}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule | ports])
        two = home_plan(cloud, instance="p4d.24xlarge", subnets=tuple(subnets), security_group=group, nodes=2)
        assert any("does not let its own members in" in each for each in two.obstacles()) == expected
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": OUT}]}])
    (obstacle,) = home_plan(cloud, instance="g5.xlarge", subnets=tuple(subnets), security_group=group).obstacles()
    assert f"--security-group {group} lets nothing out" in obstacle
    cloud.answers["DescribeInstanceTypeOfferings"] = lambda asked: {
        "InstanceTypeOfferings": [{"Location": f"{HOME}f", "InstanceType": "g5.xlarge"}]
    }
    (obstacle,) = home_plan(cloud, instance="g5.xlarge", subnets=tuple(subnets)).obstacles()
    assert obstacle.endswith("the zones that have the machine (us-east-1f) have none of the subnets in --subnet")


def test_options_of_the_network_are_checked_first(account: Cloud, ragcun: RunCommand) -> None:
    plan = ("aws", "plan", "--instance", "g5.xlarge", "--recipe", "isotropy")
    refuses(ragcun(*plan, "--subnet", "vpc-1"), 2, "--subnet vpc-1: not a subnet's id")
    refuses(ragcun(*plan, "--security-group", "x"), 2, "--security-group x: not a security group's id")
    refuses(ragcun(*plan, "--security-group", "sg-1"), 2, "give --subnet too")
    _, subnets, group = own_network()
    done = ragcun(*plan, *(f"--subnet={each}" for each in subnets), "--security-group", group)
    assert done.exit_code == 0, done.stderr
    assert "creates      launch template" in done.stdout
