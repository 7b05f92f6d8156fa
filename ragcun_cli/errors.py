"""The errors a user can cause or meet, each with its cure and its exit code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns, so that a script can tell the cases apart."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    RECIPE = 3
    ENVIRONMENT = 4
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
