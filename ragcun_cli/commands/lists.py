"""Options that take several values: given again, or comma-separated."""

from __future__ import annotations

from collections.abc import Iterable


def listed(groups: str | Iterable[str]) -> tuple[str, ...]:
    """The values of an option that was given once (a string) or several times."""
    together = [groups] if isinstance(groups, str) else groups
    return tuple(part.strip() for group in together for part in group.split(",") if part.strip())
