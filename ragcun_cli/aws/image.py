"""Find the machine image: AWS's newest Deep Learning Base image with NVIDIA's driver, by its public parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragcun_cli.aws.calls import Aws
from ragcun_cli.errors import EnvironmentUnfit

PARAMETER = "/aws/service/deeplearning/ami/x86_64/{kind}/latest/ami-id"
# AWS's guide spells the kind both with and without `gpu`.
KINDS = (
    "base-oss-nvidia-driver-gpu-ubuntu-24.04",
    "base-oss-nvidia-driver-ubuntu-24.04",
    "base-oss-nvidia-driver-gpu-ubuntu-22.04",
    "base-oss-nvidia-driver-ubuntu-22.04",
)
OWNER = "898082745236"  # the AWS account that owns the Deep Learning images
NAME_PATTERNS = ("Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 2*", "Deep Learning Base*Ubuntu 2*")


@dataclass(frozen=True)
class Image:
    """A machine image. id: ami-…; root: name of its root disk; found: the parameter or name that led to it."""

    id: str
    name: str
    root: str
    root_gib: int
    found: str


def build_image_search(pattern: str) -> dict[str, Any]:
    """Build the ec2:DescribeImages request for a name pattern."""
    return {
        "Owners": [OWNER],
        "Filters": [
            {"Name": "name", "Values": [pattern]},
            {"Name": "architecture", "Values": ["x86_64"]},
            {"Name": "state", "Values": ["available"]},
        ],
    }


def find_image(aws: Aws, region: str, given: str | None) -> Image:
    """Return a region's image: `given` (ami-…), else the one found by parameter, else the newest by name.

    Raises:
        EnvironmentUnfit: if no image is found.
    """
    if given is not None:
        return _described(aws, region, given, "given with --image")
    for kind in KINDS:
        name = PARAMETER.format(kind=kind)
        answer = aws.ask("ssm", "get_parameter", {"Name": name}, region=region, absent=("ParameterNotFound",))
        if answer:
            return _described(aws, region, answer["Parameter"]["Value"], name)
    for pattern in NAME_PATTERNS:
        found = aws.call("ec2", "describe_images", build_image_search(pattern), region=region)["Images"]
        if found:
            return _as_image(max(found, key=lambda each: each["CreationDate"]), "the newest by name")
    raise EnvironmentUnfit(
        "no AWS Deep Learning Base image was found, neither by parameter nor by name", "Choose one: --image ami-…"
    )


def _described(aws: Aws, region: str, image_id: str, found: str) -> Image:
    absent = ("InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable")
    answer = aws.ask("ec2", "describe_images", {"ImageIds": [image_id]}, region=region, absent=absent)
    if not answer or not answer["Images"]:
        raise EnvironmentUnfit(f"there is no image {image_id}", "Images are regional: choose one from this region.")
    return _as_image(answer["Images"][0], found)


def _as_image(entry: dict[str, Any], found: str) -> Image:
    root = entry["RootDeviceName"]
    disks = {each.get("DeviceName"): each.get("Ebs", {}) for each in entry.get("BlockDeviceMappings", [])}
    return Image(entry["ImageId"], entry.get("Name", ""), root, int(disks.get(root, {}).get("VolumeSize", 0)), found)
