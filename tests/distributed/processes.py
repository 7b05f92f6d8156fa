"""Processes that stand ready to train together: starting one takes seconds, a task in one that runs takes none."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

PATIENCE = 240.0  # seconds


class Processes:
    """`size` processes; each runs one task after another as ranks of a process group that is made anew."""

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.size = size
        self._pipes = []
        self._processes = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, size), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, task: Callable[..., Any], *arguments: Any, **named: Any) -> list[Any]:
        """`task(*arguments, **named)` in all of them; what it returned, by rank."""
        port = free_port()
        for pipe in self._pipes:
            pipe.send((functools.partial(task, *arguments, **named), port))
        assert all(pipe.poll(PATIENCE) for pipe in self._pipes), "a process hangs"
        answers = [pipe.recv() for pipe in self._pipes]
        failures = [answer for worked, answer in answers if not worked]
        assert not failures, "\n".join(failures)
        return [answer for _, answer in answers]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _serve(pipe: Any, rank: int, size: int) -> None:
    import torch

    torch.set_num_threads(1)
    while True:
        task, port = pipe.recv()
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        os.environ.update({name: str(value) for name, value in own.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
        try:
            pipe.send((True, task()))
        except BaseException:
            pipe.send((False, f"rank {rank}:\n{traceback.format_exc()}"))
        _forget()


def _forget() -> None:
    """Leave the group; Accelerate keeps its state for the whole process."""
    import torch
    from accelerate.state import AcceleratorState

    with contextlib.suppress(Exception):
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
