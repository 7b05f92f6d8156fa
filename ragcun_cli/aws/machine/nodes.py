"""Let a run's nodes find each other: each writes its address to the bucket and waits for the others.

The node with the lowest instance id is number 0. Prints the matching flags for `ragcun train`.
"""

from __future__ import annotations

import json
import sys
import time

from ragcun_cli import files
from ragcun_cli.aws.machine.node_context import STATE, NodeContext
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.spot import POLL_SECONDS

PORT = 29500
SECONDS_TO_WAIT = 1800.0  # machines of one fleet start together; installing takes minutes


def meet(record: RunRecord, here: NodeContext) -> tuple[int, str]:
    """Return this node's number and the address of node 0.

    Raises:
        TimeoutError: if the others do not appear.
    """
    below = f"nodes/{here.attempt}/addresses/"
    record.write_json(f"{below}{here.instance}.json", {"instance": here.instance, "address": here.address})
    store, deadline = record.store(), time.monotonic() + SECONDS_TO_WAIT
    while len(found := sorted(store.keys(below))) < here.nodes:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(found)} of {here.nodes} nodes appeared within {SECONDS_TO_WAIT / 60:.0f} minutes")
        time.sleep(POLL_SECONDS)
    first = json.loads(store.read(found[0]) or b"{}")
    return found.index(f"{below}{here.instance}.json"), str(first["address"])


def main() -> None:
    """Entry point of `python -m`."""
    here = NodeContext.read()
    try:
        rank, address = meet(here.record(), here)
    except TimeoutError as error:
        print(f"ragcun: {error}", file=sys.stderr)
        sys.exit(1)
    files.write_text(STATE / "rank", f"{rank}\n")
    print(f"--node-rank {rank} --master {address}:{PORT}")


if __name__ == "__main__":
    main()
