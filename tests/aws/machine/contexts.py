"""A machine's context in a launched run, as its tests need it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ragcun_cli.aws.machine.context import MachineContext
from ragcun_cli.aws.record import RunRecord


def context_of(
    record: RunRecord,
    folder: Path,
    attempt: int = 1,
    instance: str = "i-1",
    address: str = "10.0.0.1",
    nodes: int = 1,
    gpus: int = 1,
    **changes: Any,
) -> MachineContext:
    """changes: to the launch record."""
    launch = record.launch()
    assert launch is not None
    launch = replace(launch, wishes=replace(launch.wishes, nodes=nodes), **changes)
    one = replace(launch.attempts[0], number=attempt, gpus=gpus)
    return MachineContext(record, launch, one, instance, address, folder, folder / "cache")
