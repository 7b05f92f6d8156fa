"""Record what a launch has created so far, so that a failure can roll it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ragcun_cli.errors import RagcunError


@dataclass(frozen=True)
class Orphan:
    """Something that could not be removed, the reason, and the command that removes it."""

    what: str
    why: str
    cure: str

    def sentence(self) -> str:
        """Return a sentence for an error message."""
        return f"{self.what} (could not be removed: {self.why}); remove it with: {self.cure}"


@dataclass
class Rollback:
    """Removals, in order of creation. Each is registered before its resource is requested, because AWS may have
    created it even if its response never arrived."""

    _steps: list[tuple[str, str, Callable[[], object]]] = field(default_factory=list)

    def add(self, what: str, cure: str, remove: Callable[[], object]) -> None:
        """Register a removal. `remove` must ignore what does not exist."""
        self._steps.append((what, cure, remove))

    def extend(self, later: Rollback) -> None:
        """Append the removals of what was created after this."""
        self._steps += later._steps

    def run(self) -> list[Orphan]:
        """Remove everything, newest first; return what could not be removed."""
        left = []
        for what, cure, remove in reversed(self._steps):
            try:
                remove()
            except RagcunError as error:
                left.append(Orphan(what, error.message, cure))
            except Exception as error:  # a bug in one removal must not prevent the others
                left.append(Orphan(what, repr(error), cure))
            except KeyboardInterrupt:
                left.append(Orphan(what, "stopped by Ctrl-C", cure))
        self._steps.clear()
        return left
