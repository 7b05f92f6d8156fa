"""How many vCPUs of a kind the account may run: on EC2 the limit that a new account meets first, at 0 for GPUs.

Codes: AWS's "Amazon EC2 instance type quotas". Spot and on demand have different ones, and so have P5 and older P.
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
    """In vCPUs. code: None where ragcun does not know it; held: None where AWS does not say."""

    code: str | None
    name: str
    needed: int
    held: float | None
    used: int = 0

    @property
    def suffices(self) -> bool:
        """Whether nothing says that it does not."""
        return self.held is None or self.needed + self.used <= self.held

    def increase_page(self, region: str) -> str:
        """Where more is asked for."""
        return f"https://{region}.console.aws.amazon.com/servicequotas/home/services/ec2/quotas/{self.code or ''}"


def quota_of(instance: InstanceType, on_demand: bool) -> tuple[str | None, str]:
    """Code and name of the quota that a machine counts towards; no code for families ragcun does not know."""
    letters = instance.family.rstrip("0123456789")
    kind = {"p": "P", "g": "G", "vt": "G"}.get(letters, "Standard" if letters in STANDARD_FAMILIES else "")
    if on_demand:
        return ON_DEMAND.get(kind, (None, f"Running On-Demand {instance.family} instances"))
    if kind == "P":
        # P6 is not here: public lists disagree about its code.
        kind = {"p5": "P5", "p4": "P"}.get(instance.family, "")
    return SPOT.get(kind, (None, f"All {instance.family} Spot Instance Requests"))


def build_quota_query(code: str) -> dict[str, Any]:
    """Of servicequotas:GetServiceQuota."""
    return {"ServiceCode": "ec2", "QuotaCode": code}


def look_up_quota(aws: Aws, instance: InstanceType, nodes: int, on_demand: bool, region: str, run: str) -> Quota:
    """Needed, held and already used in a region, by others than the run itself: its last machine ends before the next
    begins. Where AWS may not be asked it says so with None.
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
    """vCPUs of the machines that count towards the same quota now."""
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
