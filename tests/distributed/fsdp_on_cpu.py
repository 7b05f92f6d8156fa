"""Accelerate takes its FSDP2 path only where there are GPUs; torch's FSDP2 itself runs on CPUs with gloo.

With this, Accelerate takes it here too, so that what is tested is what runs on GPUs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

ORIGINAL = AcceleratorState.__init__


def enable() -> None:
    """From now on in this process."""
    AcceleratorState.__init__ = _patched


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Accelerate as it is, for the time of a `with` block."""
    before = AcceleratorState.__init__
    AcceleratorState.__init__ = ORIGINAL
    try:
        yield
    finally:
        AcceleratorState.__init__ = before


def _patched(self: AcceleratorState, *positional: Any, fsdp_plugin: Any = None, **named: Any) -> None:
    first = AcceleratorState._shared_state == {}
    ORIGINAL(self, *positional, fsdp_plugin=fsdp_plugin, **named)
    if first and fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
