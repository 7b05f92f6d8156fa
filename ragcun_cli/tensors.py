"""Tensors in safetensors files, with the system's errors as the system's."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: if the disk is full.
    """
    from safetensors.torch import save_file

    with full_disk_as_os_error(path):
        save_file(tensors, path)


@contextlib.contextmanager
def full_disk_as_os_error(path: Path) -> Iterator[None]:
    """safetensors reports a full disk with an error of its own, which nobody who expects OSError would see."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        for number in (errno.ENOSPC, errno.EDQUOT):
            if f"os error {number})" in str(error):
                raise OSError(number, os.strerror(number), str(path)) from None
        raise
