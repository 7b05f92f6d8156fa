"""Let a run's nodes find each other: each writes its address to the bucket and waits for the others."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from ragcun_cli.aws.machine.context import MachineContext
from ragcun_cli.spot import POLL_SECONDS

PORT = 29500
SECONDS_TO_WAIT = 1800.0  # machines of one fleet start together; installing takes minutes


@dataclass(frozen=True)
class Place:
    """A node's number among a run's nodes, and the address of node 0 as HOST:PORT."""

    rank: int
    master: str


def meet(context: MachineContext) -> Place:
    """Return this node's place. The node with the lowest instance id is number 0.

    Raises:
        TimeoutError: if the others do not appear.
    """
    record, below = context.record, f"nodes/{context.attempt.number}/addresses/"
    own = f"{below}{context.instance}.json"
    record.write_json(own, {"instance": context.instance, "address": context.address})
    store, deadline = record.store(), time.monotonic() + SECONDS_TO_WAIT
    while len(found := sorted(store.keys(below))) < context.nodes:
        if time.monotonic() > deadline:
            minutes = SECONDS_TO_WAIT / 60
            raise TimeoutError(f"{len(found)} of {context.nodes} nodes appeared within {minutes:.0f} minutes")
        time.sleep(POLL_SECONDS)
    first = json.loads(store.read(found[0]) or b"{}")
    return Place(found.index(own), f"{first['address']}:{PORT}")
