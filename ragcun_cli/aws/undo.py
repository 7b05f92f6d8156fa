"""What a launch has made so far, so that a failure can take it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ragcun_cli.errors import RagcunError


@dataclass(frozen=True)
class Orphan:
    """Something that could not be removed again, why, and the command that does."""

    what: str
    why: str
    cure: str

    def sentence(self) -> str:
        """For an error message."""
        return f"{self.what} (could not be removed: {self.why}); remove it: {self.cure}"


@dataclass
class Undo:
    """Removals, in the order in which things were made. A removal is noted before its thing is asked for: AWS may have
    made it though its answer never came."""

    _steps: list[tuple[str, str, Callable[[], object]]] = field(default_factory=list)

    def add(self, what: str, cure: str, remove: Callable[[], object]) -> None:
        """`remove` passes over what is not there."""
        self._steps.append((what, cure, remove))

    def extend(self, later: Undo) -> None:
        """Take over what was made after this."""
        self._steps += later._steps

    def run(self) -> list[Orphan]:
        """Remove all, the newest first; what could not be removed."""
        left = []
        for what, cure, remove in reversed(self._steps):
            try:
                remove()
            except RagcunError as error:
                left.append(Orphan(what, error.message, cure))
            except Exception as error:  # a defect in one removal must not keep the others from theirs
                left.append(Orphan(what, repr(error), cure))
            except KeyboardInterrupt:
                left.append(Orphan(what, "stopped by Ctrl-C", cure))
        self._steps.clear()
        return left
