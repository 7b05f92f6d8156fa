"""Errors that a user can cause or meet, each with a hint and an exit code."""

from __future__ import annotations

import errno
import re
from enum import IntEnum

# What numpy reports in place of the operating system's error.
NUMPY_WROTE_LESS = re.compile(r"\d+ requested and \d+ written")


class ExitCode(IntEnum):
    """Exit codes of the process, so that a script can tell the cases apart."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    RECIPE = 3
    ENVIRONMENT = 4
    INTERRUPTED = 75  # sysexits.h's EX_TEMPFAIL: the same command with --resume continues
    CTRL_C = 130


class RagcunError(Exception):
    """Something went wrong that the user can understand and fix.

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
    """A command that asks for something that does not exist or makes no sense."""

    exit_code = ExitCode.USAGE
    title = "usage"


class RecipeError(RagcunError):
    """A recipe that is missing or invalid."""

    exit_code = ExitCode.RECIPE
    title = "recipe"


class EnvironmentUnfit(RagcunError):
    """This machine, its packages, network or disk cannot do what was asked."""

    exit_code = ExitCode.ENVIRONMENT
    title = "environment"


class Interrupted(RagcunError):
    """A run was asked to stop and has saved its work."""

    exit_code = ExitCode.INTERRUPTED
    title = "interrupted"


def is_full_disk(error: BaseException) -> bool:
    """Return whether the disk is full or the user's quota is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def as_ragcun_error(error: BaseException) -> RagcunError | None:
    """Translate an operating-system error for the user; return None for any other error."""
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # pathlib before Python 3.13
        return EnvironmentUnfit(str(error), "Symbolic links form a loop here: check the path.")
    if not isinstance(error, OSError):
        return None
    if error.errno is None:
        if NUMPY_WROTE_LESS.match(str(error)):
            return EnvironmentUnfit(
                f"a file could not be written completely ({error})",
                "Check whether the disk is full or file sizes are limited (ulimit -f).",
            )
        return None
    where = str(error.filename) if error.filename else str(error)
    if is_full_disk(error):
        _, _, needed = str(error.strerror).partition(": ")  # added by `files.require_writable`
        said = f"not enough disk space: {where}: {needed}" if needed else f"the disk is full: {where}"
        return EnvironmentUnfit(said, "Free some space and run again.")
    if error.errno == errno.EFBIG:
        return EnvironmentUnfit(f"{where}: the file would exceed this process's file-size limit", "See: ulimit -f")
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return EnvironmentUnfit(f"no permission: {where}", "Choose a folder you can write to.")
    said = f"{where}: {error.strerror}" if error.filename else where
    return EnvironmentUnfit(said, "Check the path." if error.filename else "")
