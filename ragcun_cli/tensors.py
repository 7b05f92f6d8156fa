"""The device that tensors live on, and safetensors files with the system's errors as the system's."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


OS_ERROR = re.compile(r"os error ([0-9]+)\)")


def best_device() -> str:
    """Return `cuda`, `mps` or `cpu`: the fastest that torch sees on this machine."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: if the disk is full.
    """
    from safetensors.torch import save_file

    with system_errors(path):
        save_file(tensors, path)


@contextlib.contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Turn safetensors' own error for a full disk and the like into an OSError, which callers expect."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = OS_ERROR.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
