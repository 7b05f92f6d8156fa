"""Define the result of a check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ragcun_cli.errors import RagcunError

OK, REMARK, FAILED = "ok", "remark", "failed"


@dataclass(frozen=True)
class Check:
    """A check's result. status: ok, remark (a warning) or failed; seen: what was found; cure: what to do about it."""

    name: str
    status: str
    seen: str
    cure: str = ""


def checked(name: str, look: Callable[[], str]) -> Check:
    """Return ok with the text that `look` returns, or failed with the error that it raises."""
    try:
        return Check(name, OK, look())
    except RagcunError as error:
        return failed(name, error)


def failed(name: str, error: RagcunError) -> Check:
    """Turn an error into a failed check."""
    return Check(name, FAILED, error.message, error.hint)
