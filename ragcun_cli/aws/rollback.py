"""Record what a launch has created so far, so that a failure can roll it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ragcun_cli.errors import RagcunError

STILL_NEEDED = "a machine that could not be ended may need it"


@dataclass(frozen=True)
class Orphan:
    """Something that could not be removed, the reason, and the command that removes it. is_machine: it may be machines
    that run on."""

    what: str
    why: str
    cure: str
    is_machine: bool = False

    def sentence(self) -> str:
        """Return a sentence for an error message."""
        return f"{self.what} (could not be removed: {self.why}); remove it with: {self.cure}"


@dataclass(frozen=True)
class _Step:
    what: str
    cure: str
    remove: Callable[[], object]
    ends_machines: bool
    serves_machines: bool


@dataclass
class Rollback:
    """Removals, in order of creation. Each is registered before its resource is requested, because AWS may have
    created it even if its response never arrived."""

    _steps: list[_Step] = field(default_factory=list)
    was_interrupted: bool = False

    def add(
        self,
        what: str,
        cure: str,
        remove: Callable[[], object],
        ends_machines: bool = False,
        serves_machines: bool = False,
    ) -> None:
        """Register a removal, which must ignore what does not exist.

        ends_machines: it is done before all others. serves_machines: it is not done if machines could not be ended.
        """
        self._steps.append(_Step(what, cure, remove, ends_machines, serves_machines))

    def extend(self, later: Rollback) -> None:
        """Append the removals of what was created after this."""
        self._steps += later._steps

    def run(self) -> list[Orphan]:
        """Remove everything, newest first; return what could not be removed. Ctrl-C skips one removal: see
        `was_interrupted`."""
        left, machines_ended = list[Orphan](), True
        newest_first = self._steps[::-1]
        for step in sorted(newest_first, key=lambda step: not step.ends_machines):
            if step.serves_machines and not machines_ended:
                left.append(Orphan(step.what, STILL_NEEDED, step.cure))
                continue
            before = len(left)
            try:
                step.remove()
            except RagcunError as error:
                left.append(Orphan(step.what, error.message, step.cure, step.ends_machines))
            except Exception as error:  # a bug in one removal must not prevent the others
                left.append(Orphan(step.what, repr(error), step.cure, step.ends_machines))
            except KeyboardInterrupt:
                self.was_interrupted = True
                left.append(Orphan(step.what, "stopped by Ctrl-C", step.cure, step.ends_machines))
            machines_ended = machines_ended and not (step.ends_machines and len(left) > before)
        self._steps.clear()
        return left
