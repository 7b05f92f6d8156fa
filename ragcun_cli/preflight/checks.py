"""What a check says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ragcun_cli.errors import RagcunError

OK, REMARK, FAILED = "ok", "remark", "failed"


@dataclass(frozen=True)
class Check:
    """status: ok, remark (go on, but know it) or failed; seen: what was found; cure: what to do about it."""

    name: str
    status: str
    seen: str
    cure: str = ""


def checked(name: str, look: Callable[[], str]) -> Check:
    """ok with what `look` says, or failed with the error that it raises."""
    try:
        return Check(name, OK, look())
    except RagcunError as error:
        return failed(name, error)


def failed(name: str, error: RagcunError) -> Check:
    """What an error says, as a check."""
    return Check(name, FAILED, error.message, error.hint)
