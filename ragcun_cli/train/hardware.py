"""Which device trains, and in which precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.model.device import best_device


@dataclass(frozen=True)
class Hardware:
    """The device that Accelerate will use.

    capability: CUDA's, (8, 0) for an A100, None elsewhere. memory_bytes: a GPU's, None elsewhere.
    """

    device: str
    name: str
    capability: tuple[int, int] | None
    memory_bytes: int | None = None


def find_hardware(number: int = 0) -> Hardware:
    """GPU `number`, which is this process's from now on, or the CPU."""
    device = best_device()
    if device == "cuda":
        torch.cuda.set_device(number)
        own = torch.cuda.get_device_properties(number)
        return Hardware(device, own.name, (own.major, own.minor), own.total_memory)
    threads = torch.get_num_threads()
    name = "Apple GPU" if device == "mps" else f"CPU, {threads} thread{'s' if threads != 1 else ''}"
    return Hardware(device, name, None)


def count_gpus() -> int:
    """CUDA GPUs that this process may use."""
    return torch.cuda.device_count()


def choose_precision(asked: str, hardware: Hardware) -> str:
    """`no`, `fp16` or `bf16` for Accelerate.

    Raises:
        EnvironmentUnfit: if the device cannot do what the recipe asks for.
    """
    if asked == "auto":
        if hardware.capability is None:
            return "no"
        # torch says that a T4 (7.5) has bf16: it means an emulation, several times slower than fp16.
        return "bf16" if hardware.capability >= (8, 0) else "fp16" if hardware.capability >= (7, 0) else "no"
    if asked == "fp16" and hardware.device != "cuda":
        raise EnvironmentUnfit(
            f"mixed_precision: fp16 needs a CUDA GPU (this is {hardware.name})", "Use mixed_precision: auto."
        )
    too_old = hardware.capability is not None and hardware.capability < (8, 0)
    if asked == "bf16" and (too_old or hardware.device == "mps"):
        raise EnvironmentUnfit(
            f"mixed_precision: {hardware.name} has no bf16",
            "Use mixed_precision: auto, which takes fp16 here.",
        )
    return asked


def explain_precision(precision: str, hardware: Hardware) -> str:
    """One phrase for the plan."""
    return {"no": "float32", "fp16": "fp16 with loss scaling", "bf16": "bf16"}[precision] + f" on {hardware.name}"


@contextlib.contextmanager
def tensor_float32(hardware: Hardware) -> Iterator[None]:
    """Let the encoder's float32 products take a GPU's TF32 (10 bits of mantissa, several times the speed)."""
    wanted = "high" if hardware.capability is not None and hardware.capability >= (8, 0) else "highest"
    with _matmul_precision(wanted):
        yield


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Losses and their gradients in all 23 bits: a distance from TF32 products could be wrong by a tenth."""
    with _matmul_precision("highest"):
        yield


@contextlib.contextmanager
def _matmul_precision(wanted: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(wanted)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
