"""The errors a user can cause or meet, each with its cure and its exit code."""

from __future__ import annotations

import errno
from enum import IntEnum

MISNAMED = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOENT)


class ExitCode(IntEnum):
    """What the process returns, so that a script can tell the cases apart."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    RECIPE = 3
    ENVIRONMENT = 4
    INTERRUPTED = 75  # sysexits.h's EX_TEMPFAIL: the same command with --resume goes on
    CTRL_C = 130


class RagcunError(Exception):
    """Something went wrong that the user can understand and mend.

    `message` says what and where (file, line or flag); `hint` says what to do about it.
    """

    exit_code = ExitCode.FAILED
    title = "failed"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DataError(RagcunError):
    """A data file that cannot be used as it is."""

    title = "data"


class ModelError(RagcunError):
    """A model or checkpoint folder that cannot be used as it is."""

    title = "model"


class UsageError(RagcunError):
    """A command that asks for something that is not there or makes no sense."""

    exit_code = ExitCode.USAGE
    title = "usage"


class RecipeError(RagcunError):
    """A recipe that is missing or not valid."""

    exit_code = ExitCode.RECIPE
    title = "recipe"


class EnvironmentUnfit(RagcunError):
    """This machine, its packages, network or disk cannot do what was asked."""

    exit_code = ExitCode.ENVIRONMENT
    title = "environment"


class Interrupted(RagcunError):
    """A run was asked to stop, and what it had done is saved."""

    exit_code = ExitCode.INTERRUPTED
    title = "interrupted"


def is_full_disk(error: BaseException) -> bool:
    """Whether the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def as_ragcun_error(error: OSError) -> RagcunError | None:
    """What the system's error means to the user; None for a defect of ours."""
    if is_full_disk(error):
        return EnvironmentUnfit(f"the disk is full: {error.filename or error}", "Free some space and run again.")
    if error.errno in MISNAMED:
        return UsageError(f"{error.filename}: {error.strerror}", "Check the path.")
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return EnvironmentUnfit(f"no permission: {error.filename or error}", "Choose a folder you can write to.")
    return None
