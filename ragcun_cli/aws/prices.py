"""Hourly machine prices in dollars: from AWS, else from a dated table."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Any

from ragcun_cli.aws.calls import Aws, AwsError

# The price list answers in three regions only; this is one of them.
PRICE_LIST_REGION = "us-east-1"
# gp3 disks in us-east-1, in dollars a month; up to twice that elsewhere. Some speed is included.
GP3_DOLLARS_PER_GIB, GP3_DOLLARS_PER_MIB_S, GP3_DOLLARS_PER_IOPS = 0.08, 0.04, 0.005
GP3_INCLUDED_MIB_S, GP3_INCLUDED_IOPS = 125, 3000
GP3_THROUGHPUT, GP3_IOPS = 500, 6000  # MiB/s and operations per second: 1.3 GB checkpoints take seconds
PUBLIC_ADDRESS_DOLLARS = 0.005  # an hour, for a public IPv4 address
MINUTES_AFTER = 15  # between the machine's own timer and the schedule outside it: both may have to be paid
HOURS_OF_A_MONTH = 730.0
TABLE_DATE = "spring 2026"
TABLE_SOURCE = f"ragcun's table, us-east-1, {TABLE_DATE}"

# On-demand and lowest spot prices for Linux in us-east-1, from a public snapshot of AWS's prices before May 2026
# (skypilot-catalog v8). g5.xlarge: published in June 2026. c7i, g4dn, g5.12xlarge: many web pages, not AWS's own list.
_TABLE: dict[str, tuple[float, float | None]] = {
    "c7i.xlarge": (0.1785, None),
    "g4dn.xlarge": (0.526, None),
    "g4dn.12xlarge": (3.912, None),
    "g5.xlarge": (1.006, None),
    "g5.12xlarge": (5.672, None),
    "g6.xlarge": (0.8048, 0.26),
    "g6e.12xlarge": (10.49, 2.9),
    "p4d.24xlarge": (21.957642, 2.47),
    "p4de.24xlarge": (27.447, 8.7),
    "p5.4xlarge": (6.88, None),
    "p5.48xlarge": (55.04, 17.6),
}


@dataclass(frozen=True)
class Price:
    """Dollars per hour, or None if unknown, and the source of the figure."""

    dollars: float | None
    source: str


UNKNOWN = Price(None, "not known")


def table_price(instance: str, on_demand: bool) -> Price:
    """Return a price from the table."""
    entry = _TABLE.get(instance)
    dollars = None if entry is None else entry[0] if on_demand else entry[1]
    return UNKNOWN if dollars is None else Price(dollars, TABLE_SOURCE)


def disk_dollars(gib: int) -> float:
    """Return what a machine's disk costs an hour, its size and its speed above what is included."""
    month = (
        gib * GP3_DOLLARS_PER_GIB
        + (GP3_THROUGHPUT - GP3_INCLUDED_MIB_S) * GP3_DOLLARS_PER_MIB_S
        + (GP3_IOPS - GP3_INCLUDED_IOPS) * GP3_DOLLARS_PER_IOPS
    )
    return month / HOURS_OF_A_MONTH


def build_price_query(instance: str, region: str) -> dict[str, Any]:
    """Build the pricing:GetProducts request: Linux, on demand, shared hardware, no third-party software."""
    wanted = {
        "instanceType": instance,
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "capacitystatus": "Used",
        "preInstalledSw": "NA",
        "marketoption": "OnDemand",
    }
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    return {"ServiceCode": "AmazonEC2", "Filters": filters, "MaxResults": 10}


def on_demand_price(aws: Aws, instance: str, region: str) -> Price:
    """Return the price in AWS's price list, or in the table if the list is not allowed or does not answer."""
    try:
        answer = aws.call("pricing", "get_products", build_price_query(instance, region), region=PRICE_LIST_REGION)
        dollars = min(_hourly(json.loads(entry)) for entry in answer["PriceList"])
        return Price(dollars, "AWS's current price list")
    except (AwsError, ValueError, KeyError, TypeError):
        return table_price(instance, on_demand=True)


def _hourly(entry: dict[str, Any]) -> float:
    for term in entry["terms"]["OnDemand"].values():
        for dimension in term["priceDimensions"].values():
            dollars = float(dimension["pricePerUnit"]["USD"])
            if dimension["unit"] == "Hrs" and dollars > 0:
                return dollars
    raise ValueError("no hourly price")


def build_spot_query(instance: str, now: datetime.datetime) -> dict[str, Any]:
    """Build the ec2:DescribeSpotPriceHistory request; a start time of now returns the current price."""
    return {"InstanceTypes": [instance], "ProductDescriptions": ["Linux/UNIX"], "StartTime": now}


def spot_prices(aws: Aws, instance: str, region: str) -> dict[str, Price]:
    """Return spot prices by zone; empty if AWS has no spot machines of this type, or does not say."""
    now = datetime.datetime.now(datetime.timezone.utc)
    try:
        answer = aws.call("ec2", "describe_spot_price_history", build_spot_query(instance, now), region=region)
    except AwsError as error:
        if error.code in ("UnauthorizedOperation", "AccessDenied"):
            return {}
        raise
    newest = sorted(answer["SpotPriceHistory"], key=lambda each: each.get("Timestamp", now))
    return {each["AvailabilityZone"]: Price(float(each["SpotPrice"]), "AWS, now") for each in newest}
