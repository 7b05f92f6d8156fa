"""Checkpoints written while training goes on.

1. The training thread collects the tensors that make up the state and continues at once.
2. A thread copies them. Forward and backward passes only read them; the next optimiser step, which would change
   them, waits until they are copied.
3. The thread writes the copy, hashes it, makes it durable, and removes the oldest checkpoint.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ragcun_cli import files
from ragcun_cli.train.checkpoint import TrainingState, write_checkpoint
from ragcun_cli.train.disk import folder_bytes, require_room
from ragcun_cli.train.run_folder import checkpoints_in

LOWEST_PRIORITY = 19
BUSY = 1.5  # processes wanting a core, per core
CHECKPOINTS_AT_ONCE = 2  # the last good one stays until the next is complete


class Saver:
    """Writes one checkpoint at a time.

    on_saved(folder): called in the thread when one is complete. most_behind: optimiser steps that may pass before
    training waits for it: on a busy machine the thread would otherwise fall behind by a whole interval.
    """

    def __init__(
        self,
        run: Path,
        checkpoints: Path,
        keep_last: int,
        on_saved: Callable[[Path], None],
        most_behind: int = 1 << 62,
    ) -> None:
        self._run = run
        self._root = checkpoints
        self._keep_last = keep_last
        self._on_saved = on_saved
        self._most_behind = max(1, most_behind)
        self._updates = 0  # since the checkpoint was begun
        self._thread: threading.Thread | None = None
        self._copied = threading.Event()
        self._error: BaseException | None = None
        # The copy's memory is kept: allocating 1.3 GB afresh takes seconds.
        self._buffers: dict[str, Tensor] = {}

    def begin(self, state: TrainingState) -> None:
        """Start saving `state` once the previous checkpoint is complete.

        Raises:
            EnvironmentUnfit: if two checkpoints do not fit on the disk.
            OSError: if the previous checkpoint could not be written.
        """
        self.finish()
        require_room(self._run, state.size(), CHECKPOINTS_AT_ONCE, sum(map(folder_bytes, checkpoints_in(self._root))))
        ready = _point_in_stream()
        self._updates = 0
        self._copied.clear()
        self._thread = threading.Thread(target=self._write, args=(state, ready), name="checkpoint-writer", daemon=True)
        self._thread.start()

    def before_update(self) -> None:
        """Wait until the state is copied, or written if training is far ahead; call before the optimiser changes it.

        Raises:
            OSError: if the checkpoint could not be written.
        """
        if self._thread is None:
            return
        self._copied.wait()
        self._updates += 1
        if self._updates > self._most_behind:
            self.finish()
        self._raise()

    def finish(self) -> None:
        """Wait until the checkpoint that was begun is complete.

        Raises:
            OSError: if it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, state: TrainingState, ready: torch.cuda.Event | None) -> None:
        try:
            copy = _copied_beside(state, ready, self._buffers)
            del state
            self._copied.set()
            _give_way()
            folder = write_checkpoint(self._root, copy)
            for old in checkpoints_in(self._root)[self._keep_last :]:
                files.remove_folder(old)
            self._on_saved(folder)
        except BaseException as error:  # raised again in the training thread
            self._error = error
        finally:
            self._copied.set()


def _give_way() -> None:
    """Give this thread only the CPU time that training leaves: hashing takes a core for seconds. Linux only.

    Does nothing if other processes want the cores too: the checkpoint would wait for them.
    """
    if sys.platform == "linux" and os.getloadavg()[0] <= BUSY * (os.cpu_count() or 1):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)


def _point_in_stream() -> torch.cuda.Event | None:
    """Return an event that marks, on a GPU, the end of all work launched so far; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    event = torch.cuda.Event()
    event.record()
    return event


def _copied_beside(state: TrainingState, ready: torch.cuda.Event | None, buffers: dict[str, Tensor]) -> TrainingState:
    """Copy the state; on a GPU in its own stream, so that the copy and later passes do not wait for each other."""
    if ready is None:
        return state.copied(buffers)
    stream = torch.cuda.Stream()
    stream.wait_event(ready)
    with torch.cuda.stream(stream):
        copy = state.copied(buffers)
    stream.synchronize()
    return copy
