"""Several runs from one command: each in its own process, one after another or one per GPU.

A run's process is `ragcun train` with its resolved recipe; what it prints goes to `<output_dir>.log`. One that fails,
or that the system kills for using too much memory, does not stop the others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.console import note
from ragcun_cli.environment import TYPED_COMMAND, command_line
from ragcun_cli.errors import ExitCode, Interrupted, RagcunError, UsageError
from ragcun_cli.processes import ERROR_FILE, POLL_SECONDS, Child, read_error, threads_each
from ragcun_cli.recipe.rendering import render_recipe
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import RunFolder, whole_records
from ragcun_cli.runs.status import Status
from ragcun_cli.train.run_folder import refuse_early
from ragcun_cli.train.runs import finished_summary, require_distinct_folders
from ragcun_cli.train.stopping import handled_by, restore, stop_with_parent

PARENT = "RAGCUN_PARENT"  # in a run's environment: the process that started it
SECONDS_TO_STOP = 240.0  # a run asked to stop gets this long to save before it is killed


@dataclass
class ScheduledRun:
    """One run and its state. flag: how its process is told to begin, `--resume`, `--overwrite` or nothing; gpu: the
    one it was given, None if it chooses itself; exit_code: None until it ends.
    """

    recipe: Recipe
    flag: str
    log: Path
    gpu: int | None = None
    process: Child | None = None
    exit_code: int | None = None
    started: float = 0.0
    error: str = ""  # that its process ended with
    error_file: Path | None = None

    @property
    def label(self) -> str:
        """The run's name in tables: that of its folder."""
        return RunFolder.of(self.recipe).root.name

    def state(self) -> str:
        """`waiting`, `training`, `done`, `stopped` or `failed`."""
        if self.exit_code is None:
            return "waiting" if self.process is None else "training"
        known = {ExitCode.DONE: "done", ExitCode.INTERRUPTED: "stopped", ExitCode.CTRL_C: "stopped"}
        return known.get(ExitCode(self.exit_code), "failed")


def plan_runs(recipes: Sequence[Recipe], resume: bool, overwrite: bool) -> list[ScheduledRun]:
    """Plan the runs, checking all of them before the first starts.

    With `resume`, runs already begun continue, and the others start.

    Raises:
        UsageError: if two runs share a folder, or a folder may not be used.
    """
    require_distinct_folders(recipes)
    if resume and overwrite:
        raise UsageError("--resume and --overwrite cannot be combined", "One resumes the runs, the other deletes them.")
    runs = []
    for recipe in recipes:
        folder = RunFolder.of(recipe)
        flag = "--resume" if resume else "--overwrite" if overwrite else ""
        refuse_early(folder, recipe, resume, overwrite)
        run = ScheduledRun(recipe, flag, folder.root.with_name(f"{folder.root.name}.log"))
        if resume and finished_summary(recipe) is not None:
            run.exit_code = int(ExitCode.DONE)  # at once: a process would take seconds to say the same
        runs.append(run)
    return runs


def train_all(
    runs: Sequence[ScheduledRun],
    gpus: int,
    on_change: Callable[[], None],
    options: Sequence[str] = (),
    deadline: float | None = None,
) -> None:
    """Train all runs, at most one at a time per GPU (or one in total), and fill in their exit codes.

    gpus: 0 if each run takes all GPUs. `on_change()` is called about once a second. options: further arguments
    for each run's command. deadline: `time.time()` at which runs save and stop, and no more start.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, when all processes have saved and ended.
        KeyboardInterrupt: after a second Ctrl-C, when they are killed.
    """
    free: list[int | None] = list(range(gpus)) if gpus else [None]
    with tempfile.TemporaryDirectory(prefix="ragcun-") as recipes, _stopped_with_us(runs):
        while any(run.exit_code is None for run in runs):
            for number, run in enumerate(runs):
                if run.process is None and run.exit_code is None and free:
                    left = None if deadline is None else int(deadline - time.time())
                    if left is not None and left <= 0:
                        run.exit_code = int(ExitCode.INTERRUPTED)
                        continue
                    run.gpu = free.pop(0)
                    more = [*options, *([] if left is None else ["--max-time", f"{left}s"])]
                    _start(run, Path(recipes) / f"{number}.yaml", more, at_once=max(1, min(gpus, len(runs))))
                elif run.process is not None and run.exit_code is None and (code := run.process.poll()) is not None:
                    run.exit_code = _as_exit_code(code)
                    run.error = read_error(run.error_file) if run.error_file is not None else ""
                    free.append(run.gpu)
            on_change()
            time.sleep(POLL_SECONDS)
    on_change()


def exit_code_of(runs: Sequence[ScheduledRun]) -> ExitCode:
    """Return 0 if all are done, else the code of the first run that failed or, if none did, was stopped."""
    codes = [ExitCode(run.exit_code) for run in runs if run.exit_code]
    stops = (ExitCode.INTERRUPTED, ExitCode.CTRL_C)
    return next((code for code in codes if code not in stops), codes[0] if codes else ExitCode.DONE)


def last_figures(run: ScheduledRun) -> dict[str, float]:
    """Return the run's latest figures: step, total_steps, best_score, loss, triples_per_second, where known."""
    folder = RunFolder.of(run.recipe)
    status = _status(run)
    if status is None:
        return {}
    records = [*whole_records(folder.metrics)[-2:], *whole_records(folder.speed)[-2:], status.content()]
    return {name: value for each in records for name, value in each.items() if isinstance(value, int | float)}


def last_error(run: ScheduledRun) -> str:
    """Return why a run failed, according to its folder or its process."""
    status = _status(run)
    return (status.exit_reason if status is not None else "") or run.error or f"see {run.log}"


def _status(run: ScheduledRun) -> Status | None:
    """Return the run's status; None if it belongs to an earlier run in this folder."""
    path = RunFolder.of(run.recipe).status
    with contextlib.suppress(OSError):
        if run.flag == "--resume" or path.stat().st_mtime >= run.started:
            return Status.find(path)
    return None


def _start(run: ScheduledRun, place: Path, options: Sequence[str], at_once: int) -> None:
    """Start a run's process. place: of its recipe; at_once: how many runs share this machine's cores."""
    # The name and the folder are in the resolved recipe, so the file's own name does not matter.
    place.write_text(render_recipe(run.recipe), encoding="utf-8")
    flags = [*([run.flag] if run.flag else []), *options]
    command = [sys.executable, "-m", "ragcun_cli", "train", "--recipe", str(place), *flags]
    run.error_file = place.with_suffix(".error")
    told = {TYPED_COMMAND: command_line(), PARENT: str(os.getpid()), ERROR_FILE: str(run.error_file)}
    if run.gpu is not None:
        told["CUDA_VISIBLE_DEVICES"] = _visible(run.gpu)
    if at_once > 1:  # each would start a thread for every core
        told["OMP_NUM_THREADS"] = threads_each(at_once)
    run.log.parent.mkdir(parents=True, exist_ok=True)
    run.started = time.time()
    with run.log.open("ab") as log:  # a process that outlived its parent may be writing there
        run.process = Child(command, told, log, log)


def end_with_parent() -> None:
    """Stop this run's process when the process that started it is gone, however it ended."""
    parent = os.environ.pop(PARENT, None)  # not passed on to processes that this one starts
    if parent is not None:
        stop_with_parent(int(parent))


def _visible(gpu: int) -> str:
    """Return CUDA's name for GPU number `gpu`, counted among those that this process may see."""
    ours = os.environ.get("CUDA_VISIBLE_DEVICES")
    return ours.split(",")[gpu] if ours else str(gpu)


@contextlib.contextmanager
def _stopped_with_us(runs: Sequence[ScheduledRun]) -> Iterator[None]:
    """Make Ctrl-C, a closed terminal or a request to end stop the runs too: none runs on unattended."""

    def as_interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = handled_by(as_interrupt)
    try:
        yield
    except KeyboardInterrupt:
        note("Stopping: the runs save first. Press Ctrl-C again to stop at once.")
        _stop(runs)
        raise Interrupted("stopped before all runs were done", "The same command with --resume continues.") from None
    except BaseException:
        _stop(runs)
        raise
    finally:
        restore(before)


def _stop(runs: Sequence[ScheduledRun]) -> None:
    """Let the runs save and end; kill those that do not."""
    processes = [run.process for run in runs if run.process is not None and run.process.poll() is None]
    try:
        for process in processes:
            process.send(signal.SIGINT)
        for process in processes:
            process.wait(SECONDS_TO_STOP)
    finally:
        for run in runs:
            if run.process is not None and run.exit_code is None:
                returned = run.process.kill()
                # It was asked to stop before it could handle signals.
                run.exit_code = int(ExitCode.CTRL_C) if returned == -signal.SIGINT else _as_exit_code(returned)


def _as_exit_code(returned: int) -> int:
    """Return our exit code for how a process ended; a signal or any unknown code counts as failed."""
    try:
        return int(ExitCode(returned))
    except ValueError:
        return int(ExitCode.FAILED)


class RunsFailed(RagcunError):
    """Some of several runs failed or were stopped."""

    def __init__(self, runs: Sequence[ScheduledRun]) -> None:
        failed = [run for run in runs if run.exit_code]
        super().__init__(
            "\n".join(f"{run.label}: {last_error(run)}" for run in failed),
            f"{len(failed)} of {len(runs)} runs did not finish; the others are not affected. "
            "The same command with --resume continues those that can be continued.",
        )
        self.exit_code = exit_code_of(runs)
