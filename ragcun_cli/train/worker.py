"""One of several processes that train one arm: started by torch.distributed.run with the path of a job."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from ragcun_cli.errors import Interrupted, as_ragcun_error
from ragcun_cli.imports import collector_at_rest
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.streams import endure
from ragcun_cli.train.outcome import LAUNCH_FOLDER, WorkerOutcome, count_attempt
from ragcun_cli.train.stopping import stop_with_parent


def main() -> None:
    """Train and leave a `WorkerOutcome`; exit with 0 if the run finished or was saved, else 1, ending the others."""
    endure()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to save; prints no traceback
    rank, local_rank, launch = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), Path(os.environ[LAUNCH_FOLDER])
    stop_with_parent(os.getppid())
    if local_rank > 0:
        _write_to(launch / f"rank-{rank:05}.log")  # one process per machine prints to the terminal
    with collector_at_rest():
        from ragcun_cli.train.arm import train_arm

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    # torch's own restart count omits restarts for a machine that joined.
    attempt = count_attempt(launch, local_rank)
    try:
        summary = train_arm(
            Recipe.model_validate(job["recipe"]),
            # When a machine is lost or joins, all resume from the last checkpoint.
            resume=job["resume"] or attempt > 0,
            overwrite=job["overwrite"] and attempt == 0,
            deadline=job["deadline"],
        )
    except BaseException as error:
        known = as_ragcun_error(error) if isinstance(error, OSError) else None
        WorkerOutcome.of_error(attempt, rank, known or error).write(launch)
        # Not sys.exit: a process whose peers are gone can hang while its threads and groups are taken down.
        _leave(0 if isinstance(error, Interrupted) else 1)
    WorkerOutcome(attempt, rank, asdict(summary)).write(launch)
    _leave(0)


def _write_to(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
