"""Wait until AWS has a machine."""

from __future__ import annotations

import time
from collections.abc import Callable

from ragcun_cli.aws.launch import LaunchFailed, Say
from ragcun_cli.aws.launch_record import Attempt

MINUTES_BETWEEN_TRIES = 5.0


def until_there_is_capacity(start: Callable[[], Attempt], hours: float, say: Say) -> Attempt:
    """Start, again and again while there is no capacity, for at most `hours`; 0 tries once.

    Raises:
        LaunchFailed: as `start`, from the last try.
    """
    deadline = time.monotonic() + hours * 3600
    while True:
        try:
            return start()
        except LaunchFailed as error:
            pause = min(MINUTES_BETWEEN_TRIES * 60, deadline - time.monotonic())
            if not error.may_be_repeated or pause <= 0:
                raise
            say(f"{error.message}\nTrying again in {pause / 60:.0f} minutes (--wait). Ctrl-C stops.")
        time.sleep(pause)
