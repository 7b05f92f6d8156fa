"""Quotas of vCPUs that an account may run: the EC2 limit that a new account hits first, as it is 0 for GPUs.

Codes: AWS's "Amazon EC2 instance type quotas". Spot and on-demand quotas differ, and so do P5 and older P.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.instances import InstanceType
from ragcun_cli.aws.names import RUN_TAG

ON_DEMAND = {
    "P": ("L-417A185B", "Running On-Demand P instances"),
    "G": ("L-DB2E81BA", "Running On-Demand G and VT instances"),
    "Standard": ("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
}
SPOT = {
    "P5": ("L-C4BD4855", "All P5 Spot Instance Requests"),
    "P": ("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
    "G": ("L-3819A6DF", "All G and VT Spot Instance Requests"),
    "Standard": ("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"),
}
STANDARD_FAMILIES = frozenset("acdhimrtz")
LIVE = ["pending", "running", "shutting-down", "stopping"]


@dataclass(frozen=True)
class Quota:
    """A quota in vCPUs. code: None if ragcun does not know it; held: the limit, None if AWS does not say."""

    code: str | None
    name: str
    needed: int
    held: float | None
    used: int = 0

    @property
    def suffices(self) -> bool:
        """Whether the quota is enough, or not known to be too small."""
        return self.held is None or self.needed + self.used <= self.held

    def increase_page(self, region: str) -> str:
        """Return the console page for requesting more."""
        return f"https://{region}.console.aws.amazon.com/servicequotas/home/services/ec2/quotas/{self.code or ''}"


def quota_of(instance: InstanceType, on_demand: bool) -> tuple[str | None, str]:
    """Return code and name of the quota that a machine counts towards; no code for families ragcun does not know."""
    letters = instance.family.rstrip("0123456789")
    kind = {"p": "P", "g": "G", "vt": "G"}.get(letters, "Standard" if letters in STANDARD_FAMILIES else "")
    if on_demand:
        return ON_DEMAND.get(kind, (None, f"Running On-Demand {instance.family} instances"))
    if kind == "P":
        # P6 is missing: public lists disagree about its code.
        kind = {"p5": "P5", "p4": "P"}.get(instance.family, "")
    return SPOT.get(kind, (None, f"All {instance.family} Spot Instance Requests"))


def build_quota_query(code: str) -> dict[str, Any]:
    """Build the servicequotas:GetServiceQuota request."""
    return {"ServiceCode": "ec2", "QuotaCode": code}


def look_up_quota(aws: Aws, instance: InstanceType, nodes: int, on_demand: bool, region: str, run: str) -> Quota:
    """Return what is needed, held and used in a region. The run's own machines do not count, because
    they end before the next one starts. What AWS does not tell is None.
    """
    code, name = quota_of(instance, on_demand)
    needed = instance.vcpus * nodes
    if code is None:
        return Quota(None, name, needed, None)
    try:
        answer = aws.call("service-quotas", "get_service_quota", build_quota_query(code), region=region)
        held = float(answer["Quota"]["Value"])
    except AwsError as error:
        if error.code in ("AccessDeniedException", "AccessDenied", "NoSuchResourceException"):
            return Quota(code, name, needed, None)
        raise
    return Quota(code, name, needed, held, _used(aws, code, on_demand, region, run))


def _used(aws: Aws, code: str, on_demand: bool, region: str, run: str) -> int:
    """Count the vCPUs of current machines that count towards the same quota."""
    request = {"Filters": [{"Name": "instance-state-name", "Values": LIVE}]}
    total = 0
    for reservation in aws.pages("ec2", "describe_instances", request, region=region, key="Reservations"):
        for each in reservation["Instances"]:
            if {"Key": RUN_TAG, "Value": run} in each.get("Tags", []):
                continue
            is_spot = each.get("InstanceLifecycle") == "spot"
            options = each.get("CpuOptions") or {}
            vcpus = options.get("CoreCount", 0) * options.get("ThreadsPerCore", 0)
            other = InstanceType(each["InstanceType"], "CPU", 0, 0, vcpus, 0)
            if is_spot != on_demand and quota_of(other, on_demand)[0] == code:
                total += vcpus
    return total
