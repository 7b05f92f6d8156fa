"""Transforms by their names on the command line. No torch here: a wrong name is refused at once."""

from __future__ import annotations

from dataclasses import dataclass

from ragcun_cli.errors import UsageError

FORMS = "none, center, whiten:ALPHA, int8, binary or truncate:D"


@dataclass(frozen=True)
class Transform:
    """One of FORMS, which `evaluate.transforms` explains. `amount` is its ALPHA or D."""

    kind: str
    amount: float = 0.0

    @property
    def name(self) -> str:
        """The transform as it is written on the command line."""
        return self.kind if self.kind not in ("whiten", "truncate") else f"{self.kind}:{self.amount:.12g}"

    @property
    def needs_fit(self) -> bool:
        """Whether it depends on passages."""
        return self.kind in ("center", "whiten", "int8")


NO_TRANSFORM = Transform("none")


def parse_transform(text: str) -> Transform:
    """Parse the name of a transform.

    Raises:
        UsageError: naming the valid forms.
    """
    kind, _, amount = text.strip().partition(":")
    try:
        if kind in ("none", "center", "int8", "binary") and not amount:
            return Transform(kind)
        if kind == "whiten" and 0 <= float(amount) <= 2:
            return Transform(kind, float(amount))
        if kind == "truncate" and int(amount) >= 1:
            return Transform(kind, int(amount))
    except ValueError:
        pass
    raise UsageError(
        f"--transform {text}: there is no such transform", f"Give {FORMS}, such as whiten:0.5 (ALPHA from 0 to 2)."
    )
