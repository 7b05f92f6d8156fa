"""The tag by which EC2's resources of a run are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragcun_cli.aws import names


def tags_for(kind: str, run: str) -> list[dict[str, Any]]:
    """Build the TagSpecifications of one kind of resource, in EC2's spelling of kinds."""
    return [{"ResourceType": kind, "Tags": names.tags_of(run)}]


def of_run(run: str) -> dict[str, Any]:
    """Build a request for what has the run's tag."""
    return {"Filters": [{"Name": f"tag:{names.RUN_TAG}", "Values": [run]}]}


def tagged(run: str | None) -> dict[str, Any]:
    """Build a request for what has the run's tag, or any run's if it is None."""
    return {"Filters": [{"Name": "tag-key", "Values": [names.RUN_TAG]}]} if run is None else of_run(run)


def run_of(entry: Mapping[str, Any]) -> str:
    """Return the run that a resource's tag names; empty if it has none."""
    return next((tag["Value"] for tag in entry.get("Tags", []) if tag["Key"] == names.RUN_TAG), "")
