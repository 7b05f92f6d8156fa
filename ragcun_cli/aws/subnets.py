"""Where machines may start in a region: subnets from which they can reach the internet, which they need."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ragcun_cli.aws.calls import Aws

EVERYWHERE = "0.0.0.0/0"
# Where a default route may lead: to an internet gateway, for machines with a public address; or to something inside,
# such as a NAT gateway, whose own way out is not checked.
TO_GATEWAY = "igw-"
INSIDE = ("NatGatewayId", "TransitGatewayId", "NetworkInterfaceId", "VpcPeeringConnectionId", "LocalGatewayId")


@dataclass(frozen=True)
class Network:
    """A region's usable subnets by zone. needs_public_address: whether machines reach the internet by one of their own.
    obstacles: why there are none, with the cure."""

    vpc: str = ""
    subnets: Mapping[str, str] = field(default_factory=dict)
    needs_public_address: bool = True
    obstacles: tuple[str, ...] = ()


def find_network(
    aws: Aws, region: str, offered: Collection[str], given: Sequence[str], security_group: str | None, nodes: int
) -> Network:
    """Return the usable subnets in the zones that offer the machine: those given, else the default VPC's.

    Raises:
        AwsError: if AWS does not answer.
    """
    if given:
        entries = _given_subnets(aws, region, given)
        if not entries:
            return Network(obstacles=(f"none of --subnet {', '.join(given)} is there",))
        if len(vpcs := sorted({each["VpcId"] for each in entries})) > 1:
            return Network(obstacles=(f"--subnet: the subnets are in several VPCs: {', '.join(vpcs)}",))
        vpc = vpcs[0]
    else:
        found_vpc = _default_vpc(aws, region)
        if found_vpc is None:
            return Network(
                obstacles=(
                    f"there is no default VPC; create one: aws ec2 create-default-vpc --region {region}; "
                    "or name subnets of another: --subnet",
                )
            )
        vpc, entries = found_vpc, _default_subnets(aws, region)
    in_zones = [each for each in entries if each["AvailabilityZone"] in offered]
    if not in_zones:
        return Network(vpc, obstacles=(_no_subnet(region, offered, given),))
    network = _with_way_out(aws, region, vpc, in_zones)
    return _with_group(aws, region, network, security_group, nodes)


def _given_subnets(aws: Aws, region: str, given: Sequence[str]) -> list[dict[str, Any]]:
    # By filter: with ids that are in another region, the call itself would fail.
    request = {"Filters": [{"Name": "subnet-id", "Values": list(given)}]}
    found: list[dict[str, Any]] = aws.call("ec2", "describe_subnets", request, region=region)["Subnets"]
    return found


def _default_vpc(aws: Aws, region: str) -> str | None:
    request = {"Filters": [{"Name": "is-default", "Values": ["true"]}]}
    found = aws.call("ec2", "describe_vpcs", request, region=region)["Vpcs"]
    return str(found[0]["VpcId"]) if found else None


def _default_subnets(aws: Aws, region: str) -> list[dict[str, Any]]:
    request = {"Filters": [{"Name": "default-for-az", "Values": ["true"]}]}
    found: list[dict[str, Any]] = aws.call("ec2", "describe_subnets", request, region=region)["Subnets"]
    return found


def _no_subnet(region: str, offered: Collection[str], given: Sequence[str]) -> str:
    zones = ", ".join(sorted(offered))
    if given:
        return f"the zones that have the machine ({zones}) have none of the subnets in --subnet"
    return (
        f"the zones that have the machine ({zones}) have no default subnet; "
        f"create one: aws ec2 create-default-subnet --availability-zone {min(offered)} --region {region}; "
        "or name subnets: --subnet"
    )


def _with_way_out(aws: Aws, region: str, vpc: str, entries: Sequence[Mapping[str, Any]]) -> Network:
    """Keep the subnets with a route to the internet; those with a gateway's, if there are both kinds."""
    request = {"Filters": [{"Name": "vpc-id", "Values": [vpc]}]}
    tables = list(aws.pages("ec2", "describe_route_tables", request, region=region, key="RouteTables"))
    public: dict[str, str] = {}
    inside: dict[str, str] = {}
    for each in sorted(entries, key=lambda entry: str(entry["SubnetId"])):
        way = _way_out(tables, each["SubnetId"])
        if way is not None:
            (public if way == TO_GATEWAY else inside).setdefault(each["AvailabilityZone"], each["SubnetId"])
    if public or inside:
        return Network(vpc, public or inside, needs_public_address=bool(public))
    names = ", ".join(str(each["SubnetId"]) for each in entries)
    return Network(
        vpc,
        obstacles=(
            f"no route leads from {names} to the internet, from where the machine gets its packages: attach an "
            f"internet gateway to {vpc} (aws ec2 create-internet-gateway; aws ec2 attach-internet-gateway) and route "
            f"{EVERYWHERE} to it (aws ec2 create-route), or name other subnets: --subnet",
        ),
    )


def _way_out(tables: Sequence[Mapping[str, Any]], subnet: str) -> str | None:
    """Return what kind of thing a subnet's default route leads to, or None if it has no working one."""
    own = [table for table in tables for each in table.get("Associations", []) if each.get("SubnetId") == subnet]
    main = [table for table in tables for each in table.get("Associations", []) if each.get("Main")]
    for table in (own or main)[:1]:
        for route in table.get("Routes", []):
            if route.get("DestinationCidrBlock") != EVERYWHERE or route.get("State") == "blackhole":
                continue
            if str(route.get("GatewayId", "")).startswith(TO_GATEWAY):
                return TO_GATEWAY
            if found := next((name for name in INSIDE if route.get(name)), None):
                return found
    return None


def _with_group(aws: Aws, region: str, network: Network, group: str | None, nodes: int) -> Network:
    """Check a security group of the user's: it must be in the VPC and let the machine out."""
    if group is None or network.obstacles:
        return network
    request = {"Filters": [{"Name": "group-id", "Values": [group]}]}
    found = aws.call("ec2", "describe_security_groups", request, region=region)["SecurityGroups"]
    if not found:
        return Network(network.vpc, obstacles=(f"--security-group {group} is not there",))
    if found[0]["VpcId"] != network.vpc:
        return Network(network.vpc, obstacles=(f"--security-group {group} is in another VPC, not in {network.vpc}",))
    if not found[0].get("IpPermissionsEgress"):
        return Network(network.vpc, obstacles=(f"--security-group {group} lets nothing out",))
    if nodes > 1 and not any(_lets_itself_in(rule, group) for rule in found[0].get("IpPermissions", [])):
        return Network(
            network.vpc,
            obstacles=(
                f"--security-group {group} does not let its own members in, so that nodes could not reach each other: "
                "add an inbound rule with all traffic from the group itself",
            ),
        )
    return network


def _lets_itself_in(rule: Mapping[str, Any], group: str) -> bool:
    members = [pair.get("GroupId") for pair in rule.get("UserIdGroupPairs", [])]
    return group in members and rule.get("IpProtocol") == "-1"
