"""Disks that outlived their machine. No launch makes any by itself: a machine's disk is removed with it."""

from __future__ import annotations

from collections.abc import Iterator

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws
from ragcun_cli.aws.resources.kind import Found, Kind, Where
from ragcun_cli.aws.resources.tags import run_of, tagged


def _find(aws: Aws, region: str, run: str | None) -> Iterator[Found]:
    for entry in aws.call("ec2", "describe_volumes", tagged(run), region=region)["Volumes"]:
        if entry.get("State") != "in-use":
            yield Found("disk", entry["VolumeId"], region, run_of(entry))


def _remove(aws: Aws, found: Found) -> None:
    aws.ask("ec2", "delete_volume", {"VolumeId": found.id}, region=found.region, absent=("InvalidVolume.NotFound",))


DISKS = Kind("disk", Where.REGION, names.resource_name, _find, _remove, costs=True)
