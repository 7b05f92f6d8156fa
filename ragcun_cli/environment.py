"""What a run ran on: versions, machine, free memory, command. None of the packages named is imported for it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import psutil

from ragcun_cli.errors import UsageError

REPORTED_PACKAGES = (
    "torch", "transformers", "tokenizers", "accelerate", "numpy", "safetensors", "pyarrow",
)  # fmt: skip


QUIET = "RAGCUN_QUIET"  # set: results and errors only, in this process and in those it starts
KEYS_FROM_DOTENV = ("HF_TOKEN", "WANDB_API_KEY")
# Set for the processes that a command starts, so that what they write names the command that the user typed.
TYPED_COMMAND = "RAGCUN_TYPED_COMMAND"
CONTROL_GROUP = Path("/sys/fs/cgroup")  # Linux's limits of a container, version 2


def read_dotenv(folder: Path) -> None:
    """Take the access keys that ragcun's parts use from `folder`/.env, unless the environment has them already.

    Nothing else is taken from it: a .env may be another program's.

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
    """ragcun's, Python's and the packages' versions; absent packages are left out."""
    from ragcun_cli import __version__

    found = {"ragcun": __version__, "python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """The command as typed, without the path of the program."""
    return os.environ.get(TYPED_COMMAND) or shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])


def environment() -> dict[str, Any]:
    """Everything of this module, for a run's environment.json."""
    return {
        "command": command_line(),
        "versions": versions(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
    }


def free_memory_of_machine() -> int:
    """Bytes that this process may still take of the machine's memory, or of a container's share of it."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):
        limit = int((CONTROL_GROUP / "memory.max").read_text())  # "max" where there is none
        used = int((CONTROL_GROUP / "memory.current").read_text())
        free = min(free, max(limit - used, 0))
    return int(free)
