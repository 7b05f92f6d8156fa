"""What a run ran on: versions, machine, free memory, command. None of the packages named is imported for it."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from ragcun_cli.errors import UsageError

REPORTED_PACKAGES = (
    "torch", "transformers", "tokenizers", "accelerate", "numpy", "safetensors", "pyarrow",
)  # fmt: skip


QUIET = "RAGCUN_QUIET"  # if set, this process and its children print only results and errors
KEYS_FROM_DOTENV = ("HF_TOKEN", "WANDB_API_KEY")
# Set in child processes, so that their output records the command that the user typed.
TYPED_COMMAND = "RAGCUN_TYPED_COMMAND"
CONTROL_GROUP = Path("/sys/fs/cgroup")  # Linux container limits (cgroup version 2)


def read_dotenv(folder: Path) -> None:
    """Load the access keys that ragcun uses from `folder`/.env, unless the environment already has them.

    Nothing else is loaded, because the .env may belong to another program.

    Raises:
        UsageError: if the file is not text.
    """
    path = folder / ".env"
    if not path.is_file():
        return
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path, interpolate=False)
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text", "Save it as UTF-8, or move it away.") from None
    for key in KEYS_FROM_DOTENV:
        if values.get(key):
            os.environ.setdefault(key, str(values[key]))


def versions() -> dict[str, str]:
    """Return the versions of ragcun, Python and the installed packages."""
    import importlib.metadata  # with psutil, a tenth of the time of `ragcun --help`

    from ragcun_cli import __version__

    found = {"ragcun": __version__, "python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """Return the command as typed, without the path of the program."""
    return os.environ.get(TYPED_COMMAND) or shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])


def environment() -> dict[str, Any]:
    """Return everything that this module records, for a run's environment.json."""
    return {
        "command": command_line(),
        "versions": versions(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
    }


def free_memory_of_machine() -> int:
    """Return how many bytes of memory this process may still take from the machine or its container."""
    import psutil

    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):
        limit = int((CONTROL_GROUP / "memory.max").read_text())  # "max" means no limit
        used = int((CONTROL_GROUP / "memory.current").read_text())
        free = min(free, max(limit - used, 0))
    return int(free)
