"""Where the nodes of a run find each other: each writes its address into the bucket and waits for the others'.

The node with the lowest instance id is number 0. Prints the flags of `ragcun train`.
"""

from __future__ import annotations

import json
import sys
import time

from ragcun_cli import files
from ragcun_cli.aws.machine.here import STATE, Here
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.spot import POLL_SECONDS

PORT = 29500
SECONDS_TO_WAIT = 1800.0  # machines of one fleet start together; installing takes minutes


def meet(record: RunRecord, here: Here) -> tuple[int, str]:
    """This node's number, and the address of number 0.

    Raises:
        TimeoutError: if the others do not come.
    """
    below = f"nodes/{here.attempt}/addresses/"
    record.write_json(f"{below}{here.instance}.json", {"instance": here.instance, "address": here.address})
    place, deadline = record.place(), time.monotonic() + SECONDS_TO_WAIT
    while len(found := sorted(place.keys(below))) < here.nodes:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(found)} of {here.nodes} nodes came within {SECONDS_TO_WAIT / 60:.0f} minutes")
        time.sleep(POLL_SECONDS)
    first = json.loads(place.read(found[0]) or b"{}")
    return found.index(f"{below}{here.instance}.json"), str(first["address"])


def main() -> None:
    """For `python -m`."""
    here = Here.read()
    try:
        rank, address = meet(here.record(), here)
    except TimeoutError as error:
        print(f"ragcun: {error}", file=sys.stderr)
        sys.exit(1)
    files.write_text(STATE / "rank", f"{rank}\n")
    print(f"--node-rank {rank} --master {address}:{PORT}")


if __name__ == "__main__":
    main()
