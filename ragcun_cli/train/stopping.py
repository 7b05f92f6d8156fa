"""What may ask a run to stop, and how all its processes stop at the same step.

SIGTERM, SIGINT, SIGHUP, a spot notice and the end of `--max-time` set one flag. After each step the processes agree on
it; all then save, and the run ends with exit code 75. A second Ctrl-C stops at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum, IntEnum
from types import FrameType
from typing import Any

import torch

from ragcun_cli.errors import Interrupted
from ragcun_cli.processes import when_parent_ends
from ragcun_cli.spot import SpotWatcher, metadata_address
from ragcun_cli.train.world import World, all_reduce_max

SAVING = b"\nragcun: Ctrl-C: saving after this step; press Ctrl-C again to stop at once.\n"


class Reason(IntEnum):
    """Why a run stops; of several reasons, the largest is reported."""

    NONE = 0
    CTRL_C = 1
    TERMINATED = 2
    HUNG_UP = 3
    TIME_IS_UP = 4
    SPOT_NOTICE = 5

    def sentence(self) -> str:
        """Describe the reason, for status.json and the user."""
        return {
            Reason.NONE: "",
            Reason.CTRL_C: "Ctrl-C",
            Reason.TERMINATED: "SIGTERM",
            Reason.HUNG_UP: "SIGHUP: the terminal, or the process that started it, is gone",
            Reason.TIME_IS_UP: "the time given by --max-time is up",
            Reason.SPOT_NOTICE: "EC2 is reclaiming this spot instance",
        }[self]


class Phase(Enum):
    """What a run is doing: before its steps there is nothing to save, after them it is saved."""

    PREPARING = 0
    STEPPING = 1
    ENDING = 2


class StopRequests:
    """This process's flag. deadline: `time.time()` at which the time is up, or None."""

    def __init__(self, world: World, deadline: float | None = None) -> None:
        self._world = world
        self._deadline = deadline
        self._reason = Reason.NONE
        self._phase = Phase.PREPARING

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals and notices during a `with` block; not in a thread, where Python delivers no signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # While several processes prepare, they wait for each other where Python calls no handler; and there is
        # nothing to save. The system's default action ends them at once, and the launcher says so.
        outside = self._on_signal if self._world.size == 1 else signal.SIG_DFL
        before = handled_by(outside)
        # One watcher per machine: EC2 notifies a machine only of its own end.
        address = metadata_address() if self._world.local_rank == 0 else None
        watcher = SpotWatcher(address, lambda _: self.request(Reason.SPOT_NOTICE)) if address else None
        if watcher is not None:
            watcher.start()
        try:
            yield
        finally:
            if watcher is not None:
                watcher.stop()
            restore(before)

    @contextlib.contextmanager
    def at_steps(self) -> Iterator[None]:
        """Defer requests to the end of a step while this block runs; after it, remaining work is finished first."""
        self._phase = Phase.STEPPING
        if threading.current_thread() is threading.main_thread():
            handled_by(self._on_signal)
        try:
            yield
        finally:
            self._phase = Phase.ENDING

    def request(self, reason: Reason) -> None:
        """Ask the run to stop at the next step."""
        self._reason = max(self._reason, reason)

    def agreed(self, device: torch.device, *others: bool) -> tuple[Reason, list[bool]]:
        """Return why all stop now, if any was asked to; and, for each of `others`, whether any process says so."""
        if self._deadline is not None and time.time() >= self._deadline:
            self.request(Reason.TIME_IS_UP)
        reason, *rest = all_reduce_max(self._world, [self._reason, *map(int, others)], device)
        return Reason(reason), [bool(each) for each in rest]

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._phase != Phase.STEPPING or self._reason == Reason.CTRL_C:
                raise KeyboardInterrupt
            self.request(Reason.CTRL_C)
            if self._world.size == 1:  # with several processes, the launcher says it
                with contextlib.suppress(OSError):  # if nobody reads the log any more
                    os.write(2, SAVING)  # not print: the signal may have interrupted one
            return
        if self._phase == Phase.PREPARING:
            raise Interrupted(
                f"{signal.Signals(number).name} before a step was trained", "The same command with --resume continues."
            )
        self.request(Reason.HUNG_UP if number == signal.SIGHUP else Reason.TERMINATED)


Handler = Callable[[int, FrameType | None], None] | int


def handled_by(handler: Handler) -> dict[int, Any]:
    """Install `handler` for signals to stop; return the old ones. A SIGHUP ignored under nohup stays ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return {number: signal.signal(number, handler) for number in numbers}


def restore(handlers: dict[int, Any]) -> None:
    """Put back what `handled_by` returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def stop_with_parent(parent: int) -> None:
    """Send SIGHUP to this process when `parent`, which started it, is gone."""

    def stop() -> None:
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # by nohup
        os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGHUP)

    when_parent_ends(parent, stop)
