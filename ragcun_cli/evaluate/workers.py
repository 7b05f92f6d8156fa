"""Several processes, one per device, that encode blocks of passages and search parts of them.

Each loads the model once and then takes tasks from one queue, so that a slow device holds up no other. They write
complete shards or nothing: killing any of them, or all, costs only the blocks they had begun.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ragcun_cli.errors import EnvironmentUnfit, RagcunError
from ragcun_cli.processes import POLL_SECONDS, when_parent_ends


@dataclass(frozen=True)
class _Failure:
    """What went wrong in a process: a ragcun error as its class, message and hint, any other as a traceback."""

    kind: type[RagcunError] | None
    message: str
    hint: str = ""


class Workers:
    """A `with` block that keeps worker processes ready."""

    def __init__(self, devices: list[str], prepare: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Call `prepare(*arguments, device)` first in each process; what it returns is every task's first argument."""
        self.devices = devices
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._tasks: Any = context.Queue()
        self._answers: Any = context.Queue()
        threads = max(1, (os.cpu_count() or 1) // len(devices))
        self._processes = [
            context.Process(
                target=_work, args=(self._tasks, self._answers, prepare, (*arguments, device), threads), daemon=True
            )
            for device in devices
        ]

    def __enter__(self) -> Workers:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def each(
        self,
        function: Callable[..., Any],
        tasks: Iterable[tuple[Any, ...]],
        on_answer: Callable[[Any], None] | None = None,
    ) -> list[Any]:
        """Run `function(prepared, *task)` for every task in some process; return the answers in the tasks' order.

        `on_answer` is called with each answer as it comes.

        Raises:
            RagcunError: as the function raised it.
            EnvironmentUnfit: if a process was killed.
        """
        numbered = list(enumerate(tasks))
        for number, task in numbered:
            self._tasks.put((number, function, task))
        answers: dict[int, Any] = {}
        while len(answers) < len(numbered):
            number, answer = self._next_answer()
            if isinstance(answer, _Failure):
                if answer.kind is None:
                    raise RuntimeError(f"in a worker process:\n{answer.message}")
                raise answer.kind(answer.message, answer.hint)
            answers[number] = answer
            if on_answer is not None:
                on_answer(answer)
        return [answers[number] for number, _ in numbered]

    def _next_answer(self) -> tuple[int, Any]:
        while True:
            try:
                answer: tuple[int, Any] = self._answers.get(timeout=POLL_SECONDS)
                return answer
            except queue.Empty:
                dead = [process for process in self._processes if not process.is_alive()]
                if dead:
                    raise EnvironmentUnfit(
                        f"a worker process ended with code {dead[0].exitcode}",
                        "Code -9 comes from the system when memory runs out: use fewer --processes. What was encoded "
                        "is kept; the same command continues.",
                    ) from None


def _work(tasks: Any, answers: Any, prepare: Callable[..., Any], arguments: tuple[Any, ...], threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends us
    when_parent_ends(os.getppid(), lambda: os._exit(1))  # one that is killed cannot end us
    import torch

    torch.set_num_threads(threads)
    prepared = None
    while True:
        number, function, task = tasks.get()
        try:
            prepared = prepare(*arguments) if prepared is None else prepared
            answer = function(prepared, *task)
        except RagcunError as error:
            answer = _Failure(type(error), error.message, error.hint)
        except Exception:
            answer = _Failure(None, traceback.format_exc())
        answers.put((number, answer))
