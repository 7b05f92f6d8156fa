"""Names that come from elsewhere (a bucket, a manifest, a zip, a record, a server), joined to a folder of ours.

Whoever can write to a bucket chooses the names of what is fetched from it: `../../.ssh/authorized_keys` is a legal key
in S3. Every such name goes through `safe_join` before a file is opened.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

LONGEST_PART = 255  # bytes of one part of a path, on every common file system
LONGEST_NAME = 1024  # bytes of a whole name, as in S3


class UnsafeName(OSError, ValueError):
    """A name that must not become a path here. An OSError, as whoever copies files expects of a file that fails."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{shown_name(name)}: refused as a file name: {reason}")


# What a hostile or broken list of names leads to: one outside the folder, or one that is both a file and a folder.
UNUSABLE_NAME = (UnsafeName, FileExistsError, IsADirectoryError, NotADirectoryError)


def safe_join(root: Path, name: str) -> Path:
    """Return `root / name` if that is a file or folder below `root`, with links followed.

    Raises:
        UnsafeName: if the name is absolute, leaves `root`, has an empty part, `.`, a backslash or a control character,
            or passes through a link that leaves `root`.
    """
    require_safe_name(name)
    path = root / name
    real_root = os.path.realpath(root)
    if not os.path.realpath(path).startswith(real_root.rstrip(os.sep) + os.sep):
        raise UnsafeName(name, f"a link leads it outside {root}")
    return path


def require_safe_name(name: str) -> None:
    """Refuse a name that is not a plain relative path with `/` between its parts.

    Raises:
        UnsafeName: naming the reason.
    """
    if not isinstance(name, str):
        raise UnsafeName(repr(name), "it is not text")
    if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in name):
        raise UnsafeName(name, "it has a control character")
    if "\\" in name:
        raise UnsafeName(name, "it has a backslash")
    if name.startswith("/"):
        raise UnsafeName(name, "it is an absolute path")
    if len(name.encode()) > LONGEST_NAME:
        raise UnsafeName(name, f"it is longer than {LONGEST_NAME} bytes")
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise UnsafeName(name, f"it has the part {part!r}")
        if len(part.encode()) > LONGEST_PART:
            raise UnsafeName(name, f"a part is longer than {LONGEST_PART} bytes")


def shown_name(name: str) -> str:
    """Return a name with control characters escaped, and shortened, so that it can be printed."""
    escaped = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)
    return escaped if len(escaped) <= LONGEST_PART else f"{escaped[:LONGEST_PART]}…"
