"""Parse and format sizes and durations as people type them."""

from __future__ import annotations

import re

from ragcun_cli.errors import UsageError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?\s*$", re.IGNORECASE)
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SECONDS = (86_400, 3600, 60, 1)


def shown_bytes(count: float) -> str:
    """Format bytes such as `1.2 GiB`, in powers of 1,024 as users type them."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"


def megabytes(count: float) -> str:
    """Format bytes such as `2.8 MB`, in powers of 1,000 as is usual for downloads."""
    return f"{count / 1e6:,.1f} MB"


def parse_bytes(text: str, flag: str) -> int:
    """Parse `2GiB`, `500M` or a plain number of bytes; K, M, G and T are powers of 1,024.

    Raises:
        UsageError: naming the flag.
    """
    match = _SIZE.match(text)
    amount = float(match[1]) * _UNITS[match[2].upper()] if match else 0
    if not 1 <= amount < 2**60:
        raise UsageError(f"{flag} {text}: not a size", "Give a size such as 2GiB or 500MiB.")
    return int(amount)


def parse_duration(text: str, flag: str) -> float:
    """Parse `90m`, `1h30m`, `2d` or `45s` into seconds.

    Raises:
        UsageError: naming the flag.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    seconds = sum(int(count or 0) * unit for count, unit in zip(match.groups(), _SECONDS, strict=True)) if match else 0
    if seconds == 0:
        raise UsageError(f"{flag} {text}: not a duration", "Give a duration such as 45s, 90m, 1h30m or 2d.")
    return float(seconds)


def counted(count: int, noun: str) -> str:
    """Format a count with its noun, such as `1 query` or `2 datasets`. Only for plurals in s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
