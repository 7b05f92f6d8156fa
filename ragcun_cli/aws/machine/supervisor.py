"""Supervise a run on its machine: execute its stages, upload what they make, and end it when it must end.

boot.sh starts this program, and shuts the machine down when it is done. A stage that exits with code 75 was
interrupted: what it saved is in the bucket, and the next machine resumes from there.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ragcun_cli.aws.launch_record import FAILED, FINISHED, INTERRUPTED, as_time
from ragcun_cli.aws.machine.brakes import Brakes, Ending, GpuGauge, newest_in
from ragcun_cli.aws.machine.context import MachineContext
from ragcun_cli.aws.machine.nodes import meet
from ragcun_cli.aws.machine.stages import Command, Stage, stages_of
from ragcun_cli.aws.machine.uploads import Uploads
from ragcun_cli.errors import ExitCode
from ragcun_cli.processes import Child
from ragcun_cli.spot import POLL_SECONDS, metadata_address

SECONDS_TO_STOP = 420.0  # of the ten minutes before --max-hours is over; the rest is for the last upload
FOLDERS = ("logs", "results", "report", "recipes", "checkpoints")


def supervise(context: MachineContext) -> bool:
    """Execute the run to its end, whatever that is; return whether it could be reported."""
    for name in FOLDERS:
        (context.folder / name).mkdir(exist_ok=True)
    place = None
    if context.nodes > 1:
        _say("meeting")
        try:
            place = meet(context)
        except TimeoutError as error:
            return _report(Uploads(context, is_first=True), Ending(FAILED, 1, f"the nodes did not meet: {error}"))
    is_first = place is None or place.rank == 0
    uploads = Uploads(context, is_first)
    uploads.start()
    brakes = Brakes(
        end=as_time(context.attempt.end).timestamp(),
        idle_minutes=context.launch.wishes.idle_minutes,
        gpus=context.attempt.gpus,
        address=metadata_address(),
        use=GpuGauge().use,
        written=lambda: newest_in(context.folder),
    )
    for stage in stages_of(context, place):
        uploads.stage = stage.name
        _say(stage.name)
        if ending := run_stage(stage, context.folder, brakes):
            return _report(uploads, ending)
    return _report(uploads, Ending(FINISHED, 0, "" if is_first else "the first node continues"))


def _report(uploads: Uploads, ending: Ending) -> bool:
    print(f"ragcun: {ending.state}{f': {ending.reason}' if ending.reason else ''}", flush=True)
    is_reported = uploads.finish(ending)
    if not is_reported:
        print("ragcun: this could not be reported; the machine ends all the same", flush=True)
    return is_reported


def run_stage(stage: Stage, folder: Path, brakes: Brakes) -> Ending | None:
    """Execute a stage's commands; return how the run ends because of it, or None if it goes on."""
    began = time.monotonic()
    for command in stage.commands(folder):
        code, ending = _run(command, stage, began, brakes)
        if ending is not None:
            return ending
        if code == ExitCode.INTERRUPTED:
            return Ending(INTERRUPTED, code, f"stopped during {stage.name}")
        if code and not command.may_fail:
            return Ending(FAILED, code, f"{stage.name} ended with code {code}")
        if code and command.output is not None:
            command.output.unlink(missing_ok=True)
    return None


def _run(command: Command, stage: Stage, began: float, brakes: Brakes) -> tuple[int, Ending | None]:
    """Execute one command; return its exit code, and why the run must end, if it must."""
    with _opened(command.output) as output, Child(command.arguments, {}, output) as child:
        while (code := child.poll()) is None:
            if ending := brakes.reason(stage, time.monotonic() - began):
                print(f"ragcun: {ending.reason}: stopping", flush=True)
                return _stopped(child), ending
            child.wait(POLL_SECONDS)
        return code, None


def _stopped(child: Child) -> int:
    """Ask a command to end: training saves and exits with code 75. One that does not end in time is killed."""
    child.send(signal.SIGTERM)
    code = child.wait(SECONDS_TO_STOP)
    return child.kill() if code is None else code


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
        return
    with path.open("wb") as stream:
        yield stream


def _say(stage: str) -> None:
    print(f"== {stage}, {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}", flush=True)


def main() -> None:
    """Entry point of `python -m`. Exit code 0 once the run is over, 75 if that could not be reported."""
    try:
        is_reported = supervise(MachineContext.read())
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0 if is_reported else ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
