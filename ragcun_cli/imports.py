"""Importing torch and transformers faster, and finding out what cannot be imported."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
from collections.abc import Iterator, Sequence

from ragcun_cli.errors import EnvironmentUnfit


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """Import without the garbage collector, which would look again and again through what stays anyway.

    Of the 4.6 s until a training has imported everything it saves 0.9.
    """
    was_at_work = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_at_work:
            gc.enable()


def require_packages(what: str, packages: Sequence[str], extra: str) -> None:
    """Refuse early what needs packages that only an extra of ragcun brings.

    Raises:
        EnvironmentUnfit: naming the first that is not installed.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise EnvironmentUnfit(f"{what} needs the package {package}", f"pip install 'ragcun[{extra}]'")


def require_onnx() -> None:
    """
    Raises:
        EnvironmentUnfit: if a package is not installed.
    """
    require_packages("ONNX", ("onnx", "onnxruntime", "onnxscript"), "onnx")
