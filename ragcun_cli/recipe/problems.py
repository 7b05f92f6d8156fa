"""Problems in a recipe, each with its location in the file and the offending line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SourceLocation:
    """Where a value was written: a line of a file, or a `--set` on the command line.

    line and column count from 1; line 0 means the location is not a line (`--set`, or a whole file).
    """

    source: str
    line: int = 0
    column: int = 0
    text: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Problem:
    """One problem in a recipe."""

    location: SourceLocation
    message: str

    def render(self) -> str:
        """Return `file:line:column: message`, then the source line with a caret under the column."""
        first = f"{self.location}: {self.message}"
        if not self.location.text:
            return first
        number = f"{self.location.line:>5}"
        caret = " " * (self.location.column - 1) + "^"
        return f"{first}\n{number} | {self.location.text}\n{' ' * len(number)} | {caret}"


def render_problems(problems: Iterable[Problem]) -> str:
    """Render all problems in order of file and line."""
    in_order = sorted(problems, key=lambda problem: (problem.location.source, problem.location.line))
    return "\n".join(problem.render() for problem in in_order)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return the end of a sentence: the nearest known word, or all known words if none is close."""
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    return "known: " + ", ".join(sorted(known))
