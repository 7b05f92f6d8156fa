"""Instance types: what AWS says about a type, and a table of common ones for planning without an account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ragcun_cli.aws.calls import Aws
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.recipe.estimates import Machine
from ragcun_cli.recipe.problems import did_you_mean


@dataclass(frozen=True)
class InstanceType:
    """What matters about an instance type. gpu: name of its GPUs, or CPU if it has none; memory in GiB.

    markets: how AWS sells it: on-demand, spot, capacity-block.
    """

    name: str
    gpu: str
    gpus: int
    gpu_memory: float
    vcpus: int
    memory: float
    markets: tuple[str, ...] = ("on-demand", "spot")

    @property
    def family(self) -> str:
        """The type's name up to and including the first digit: p4, g5, inf2."""
        first = next((number for number, sign in enumerate(self.name) if sign.isdigit()), len(self.name) - 1)
        return self.name[: first + 1]

    def machine(self, nodes: int) -> Machine:
        """Convert to the `Machine` that the estimates use. Two vCPUs are threads of one core."""
        memory = (self.gpu_memory if self.gpus else self.memory) * (1 << 30)
        return Machine(self.gpu, max(self.gpus, 1), max(1, self.vcpus // 2), nodes, memory)

    def described(self) -> str:
        """Describe the type, such as `8 x A100 40 GiB, 96 vCPU, 1152 GiB`."""
        gpus = f"{self.gpus} x {self.gpu} {self.gpu_memory:.0f} GiB, " if self.gpus else ""
        return f"{gpus}{self.vcpus} vCPU, {self.memory:.0f} GiB"


# From AWS's documentation; used when AWS is not asked (`aws plan --offline`).
KNOWN = {
    each.name: each
    for each in (
        InstanceType("c7i.xlarge", "CPU", 0, 0, 4, 8),
        InstanceType("g4dn.xlarge", "T4", 1, 16, 4, 16),
        InstanceType("g4dn.12xlarge", "T4", 4, 16, 48, 192),
        InstanceType("g5.xlarge", "A10G", 1, 24, 4, 16),
        InstanceType("g5.12xlarge", "A10G", 4, 24, 48, 192),
        InstanceType("g6.xlarge", "L4", 1, 24, 4, 16),
        InstanceType("g6e.12xlarge", "L40S", 4, 48, 48, 384),
        InstanceType("p4d.24xlarge", "A100", 8, 40, 96, 1152),
        InstanceType("p4de.24xlarge", "A100", 8, 80, 96, 1152),
        InstanceType("p5.4xlarge", "H100", 1, 80, 16, 256),
        InstanceType("p5.48xlarge", "H100", 8, 80, 192, 2048),
    )
}

# Families that AWS sells mostly, or only, as Capacity Blocks: GPUs reserved for certain days, paid in advance.
IN_CAPACITY_BLOCKS = ("p5", "p5e", "p5en", "p6")
CAPACITY_BLOCKS = (
    "AWS sells most machines of this type as Capacity Blocks, reserved for certain days and paid in advance, which "
    "ragcun does not start: take p4d.24xlarge or g6e.12xlarge; or start a machine in your block by hand and run "
    "`ragcun train --resume` and `ragcun eval` there, with `backup: s3://…` in the recipe."
)


def capacity_blocks_note(instance: InstanceType) -> str:
    """Return what to do about a type that AWS sells mostly in Capacity Blocks; empty for others."""
    family = instance.name.split(".")[0].split("-")[0]
    return CAPACITY_BLOCKS if family in IN_CAPACITY_BLOCKS or instance.markets == ("capacity-block",) else ""


# AWS retired EC2 P3 during 2025 and 2026, and its API no longer describes it.
RETIRED = {
    "p3.2xlarge": "g5.xlarge (one A10G, 24 GiB)",
    "p3.8xlarge": "g5.12xlarge (four A10G, 24 GiB each)",
    "p3.16xlarge": "p4d.24xlarge (eight A100, 40 GiB each)",
    "p3dn.24xlarge": "p4d.24xlarge (eight A100, 40 GiB each)",
}


def require_not_retired(name: str) -> None:
    """Refuse EC2 P3.

    Raises:
        UsageError: with the type that replaces it.
    """
    if name.split(".")[0] in ("p3", "p3dn"):
        nearest = RETIRED.get(name, "g5.xlarge to p4d.24xlarge")
        raise UsageError(
            f"--instance {name}: AWS has retired EC2 P3", f"Closest to it: {nearest}. Others: {', '.join(KNOWN)}."
        )


def known_instance(name: str) -> InstanceType:
    """Return a type from the table, for planning without an account.

    Raises:
        UsageError: if the table does not have it.
    """
    require_not_retired(name)
    if name not in KNOWN:
        raise UsageError(
            f"--instance {name}: ragcun's own table has no such type; {did_you_mean(name, sorted(KNOWN))}",
            "Omit --offline to ask AWS.",
        )
    return KNOWN[name]


def describe_instance(aws: Aws, name: str, regions: Sequence[str]) -> InstanceType:
    """Return what AWS says about a type in the first region that has it.

    Raises:
        UsageError: if it is retired, unknown, or has unsupported processors or GPUs.
        AwsError: if AWS does not answer.
    """
    require_not_retired(name)
    request = {"InstanceTypes": [name]}
    for region in regions:
        answer = aws.ask("ec2", "describe_instance_types", request, region=region, absent=("InvalidInstanceType",))
        if answer and answer["InstanceTypes"]:
            return _parsed(answer["InstanceTypes"][0])
    raise UsageError(
        f"--instance {name}: AWS has no such type in {', '.join(regions)}; {did_you_mean(name, sorted(KNOWN))}",
        "Not every region has every type: try another --region.",
    )


def _parsed(entry: dict[str, Any]) -> InstanceType:
    name = entry["InstanceType"]
    if "x86_64" not in entry.get("ProcessorInfo", {}).get("SupportedArchitectures", ["x86_64"]):
        raise EnvironmentUnfit(f"--instance {name}: ARM processors are not supported", "Choose another type.")
    gpus = entry.get("GpuInfo", {}).get("Gpus", [])
    if gpus and gpus[0].get("Manufacturer", "NVIDIA") != "NVIDIA":
        raise EnvironmentUnfit(f"--instance {name}: {gpus[0]['Manufacturer']} GPUs are not supported", "Choose NVIDIA.")
    return InstanceType(
        name=name,
        gpu=gpus[0]["Name"] if gpus else "CPU",
        gpus=int(gpus[0]["Count"]) if gpus else 0,
        gpu_memory=gpus[0]["MemoryInfo"]["SizeInMiB"] / 1024 if gpus else 0.0,
        vcpus=int(entry["VCpuInfo"]["DefaultVCpus"]),
        memory=entry["MemoryInfo"]["SizeInMiB"] / 1024,
        markets=tuple(entry.get("SupportedUsageClasses", ("on-demand", "spot"))),
    )
