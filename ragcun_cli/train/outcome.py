"""A worker tells its launcher how the run ended through a file, since exit codes do not get through.

torch.distributed.run returns 1 whatever its workers return.
"""

from __future__ import annotations

import contextlib
import json
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragcun_cli import errors, files
from ragcun_cli.errors import RagcunError
from ragcun_cli.runs.status import ArmSummary

LAUNCH_FOLDER = "RAGCUN_LAUNCH_FOLDER"  # in the environment of agent and workers
BEGAN = "began-"
FAILURES = "failures.json"  # the agent's: which workers ended with what code


@dataclass(frozen=True)
class WorkerOutcome:
    """How a worker ended. attempt: counts the groups that this machine's workers joined. kind: class of a ragcun error,
    None for any other or no error. trace: the traceback of any other error.
    """

    attempt: int
    rank: int
    summary: dict[str, Any] | None = None
    kind: str | None = None
    message: str = ""
    hint: str = ""
    trace: str = ""

    @classmethod
    def of_error(cls, attempt: int, rank: int, error: BaseException) -> WorkerOutcome:
        """Make the outcome of a worker that ended with an error."""
        if isinstance(error, RagcunError):
            return cls(attempt, rank, None, type(error).__name__, error.message, error.hint)
        return cls(attempt, rank, message=repr(error), trace="".join(traceback.format_exception(error)))

    def write(self, folder: Path) -> None:
        """Write the outcome for the launcher."""
        files.write_json(folder / f"outcome-{self.attempt:05}-{self.rank:05}.json", asdict(self))

    def error(self) -> RagcunError | None:
        """Recreate the ragcun error; None if there was none."""
        kind = getattr(errors, self.kind, RagcunError) if self.kind else None
        return kind(self.message, self.hint) if kind else None


def read_outcomes(folder: Path) -> list[WorkerOutcome]:
    """Read the outcomes that this machine's workers left in their last group, by rank."""
    found = []
    for path in sorted(folder.glob("outcome-*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(WorkerOutcome(**json.loads(path.read_text(encoding="utf-8"))))
    attempts = [int(path.name.rsplit("-", 1)[1]) for path in folder.glob(f"{BEGAN}*")]
    return [outcome for outcome in found if outcome.attempt == max(attempts, default=0)]


def count_attempt(folder: Path, local_rank: int) -> int:
    """Return how many workers with this number an elastic group started here before, and record this one too."""
    own = f"{BEGAN}{local_rank:05}-"
    before = len(list(folder.glob(f"{own}*")))
    (folder / f"{own}{before:05}").touch()
    return before


def summary_of(outcomes: list[WorkerOutcome]) -> ArmSummary | None:
    """Return the run's summary if every worker that left an outcome finished."""
    summaries = [outcome.summary for outcome in outcomes]
    return ArmSummary(**summaries[0]) if summaries and summaries[0] and all(summaries) else None
