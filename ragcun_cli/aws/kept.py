"""This computer's own copy of what a run was launched with, so that nobody else's words start a machine.

launch.json is in a bucket, which other users and programs may be able to change, and `ragcun aws watch` starts machines
by it with the user's credentials. So `launch` keeps a copy here; `watch` and `--resume` start a machine only if the
bucket's record asks for the same as the copy, which the user gave or confirmed.
"""

from __future__ import annotations

import os
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.aws.launch_record import LaunchRecord, parse_launch
from ragcun_cli.errors import DataError, EnvironmentUnfit, UsageError

FREE = ("attempts", "terminated")  # these change as the run goes on


def kept_file(account: str, bucket: str, run: str) -> Path:
    """Return the copy's path, in the folder that the XDG rules name for a program's state."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return files.expanded(base) / "ragcun" / "aws" / account / bucket / f"{run}.json"


def keep(launch: LaunchRecord, bucket: str) -> None:
    """Keep a copy of a record that the user's command gave or that the user confirmed."""
    files.write_json(kept_file(launch.account, bucket, launch.run), launch.as_json())


def forget(account: str, bucket: str, run: str) -> None:
    """Remove the copy of a run that is gone."""
    kept_file(account, bucket, run).unlink(missing_ok=True)


def kept_record(account: str, bucket: str, run: str) -> LaunchRecord | None:
    """Return the copy, or None if there is none.

    Raises:
        UsageError: if it cannot be read: whatever it said, it must not be ignored.
    """
    path = kept_file(account, bucket, run)
    try:
        return parse_launch(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except (OSError, DataError) as error:
        said = error.message if isinstance(error, DataError) else f"{path}: {error.strerror}"
        raise UsageError(
            f"this computer's copy of what run {run} was launched with cannot be read: {said}",
            f"Remove {path}; the command then shows what the run's record asks for, and asks you.",
        ) from None


def require_writable(account: str, bucket: str, run: str) -> None:
    """Check, before anything is made, that a copy can be kept.

    Raises:
        EnvironmentUnfit: naming the file.
    """
    path = kept_file(account, bucket, run)
    try:
        files.require_writable(path)
    except OSError as error:
        raise EnvironmentUnfit(
            f"{path}: the launch's record cannot be kept there: {error.strerror}",
            "Set XDG_STATE_HOME to a folder that you can write to.",
        ) from None


def require_as_kept(launch: LaunchRecord, bucket: str) -> None:
    """Refuse to start a machine by a record that asks for something else than this computer's copy.

    Raises:
        UsageError: naming each difference, or if there is no copy.
    """
    copy = kept_record(launch.account, bucket, launch.run)
    cure = (
        f"Look at it, and confirm it: ragcun aws watch {launch.run} --accept-record, or ragcun aws launch --run "
        f"{launch.run} --resume --accept-record to start a machine now."
    )
    if copy is None:
        raise UsageError(f"run {launch.run}: this computer has not confirmed what it was launched with", cure)
    if found := changes(copy, launch):
        raise UsageError(
            f"run {launch.run}: its record in the bucket differs from what was launched or confirmed here:\n"
            + "\n".join(f"  {each}" for each in found),
            cure,
        )


def changes(copy: LaunchRecord, launch: LaunchRecord) -> list[str]:
    """Name each difference between the copy and the bucket's record; what hours are left follows from the attempts."""
    before, after = copy.as_json(), launch.as_json()
    wishes_before, wishes_after = before.pop("wishes"), after.pop("wishes")
    found = [
        f"{name}: {wishes_after[name]}, not {wishes_before[name]}"
        for name in wishes_before
        if wishes_before[name] != wishes_after[name]
    ]
    found += [f"{name} differs" for name in before if name not in FREE and before[name] != after[name]]
    known = {each.number: each for each in launch.attempts}
    ours = {each.number for each in copy.attempts}
    found += [
        f"attempt {each.number} is missing, or is not as this computer knows it"
        for each in copy.attempts
        if known.get(each.number) != each
    ]
    return found + [f"attempt {number} was not started from here" for number in known if number not in ours]
