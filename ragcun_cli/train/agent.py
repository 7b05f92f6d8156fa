"""Our wrapper of torch.distributed.run, so that it neither outlives its parent nor prints tracebacks.

When a worker fails, `python -m torch.distributed.run` prints some fifty lines about itself; here the failure goes to a
file that the launcher reads, and the worker has already said why.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as run

from ragcun_cli import files
from ragcun_cli.streams import endure
from ragcun_cli.train.outcome import FAILURES, LAUNCH_FOLDER
from ragcun_cli.train.stopping import stop_with_parent


def main() -> None:
    """Run torch.distributed.run with this process's arguments; exit code 0 if all workers ended with 0, else 1."""
    endure()
    stop_with_parent(os.getppid())
    logging.disable(logging.CRITICAL)  # in this process: workers have already reported what torch says about them
    try:
        run(sys.argv[1:])
    except ChildFailedError as error:
        _leave([{"rank": rank, "exit_code": failure.exitcode} for rank, failure in error.failures.items()])
    except (SignalException, KeyboardInterrupt):
        sys.exit(1)
    except Exception as error:  # whatever keeps machines from connecting
        _leave([], " ".join(str(error).split()) or repr(error))


def _leave(workers: list[dict[str, int]], error: str = "") -> NoReturn:
    files.write_json(Path(os.environ[LAUNCH_FOLDER]) / FAILURES, {"workers": workers, "error": error})
    sys.exit(1)


if __name__ == "__main__":
    main()
