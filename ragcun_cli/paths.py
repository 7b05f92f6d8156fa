"""Paths as users write them: with `~`, and only such as every part of ragcun can write down."""

from __future__ import annotations

import sys
from pathlib import Path

from ragcun_cli.errors import EnvironmentUnfit, UsageError


def expanded(text: str | Path) -> Path:
    """The path with `~` and `~user` replaced, wherever it stands: in an option, a recipe or the environment.

    Raises:
        UsageError: if there is no such user, or nobody says where home is.
        EnvironmentUnfit: if the name is not text: results, cards and tensors' files hold names as UTF-8.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{text}: cannot find this home folder", "Write the full path, or set HOME.") from None
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        cure = "Rename it." if encoding == "utf-8" else f"This locale knows {encoding} alone: set LC_ALL=C.UTF-8."
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise EnvironmentUnfit(f"{shown}: this name is not UTF-8", cure) from None
    return path
