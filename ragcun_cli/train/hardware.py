"""The training device, and the precision of its matrix products."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ragcun_cli.tensors import best_device
from ragcun_cli.train.precision import Hardware


def find_hardware(number: int = 0) -> Hardware:
    """Select GPU `number` for this process, or fall back to the Apple GPU or the CPU."""
    device = best_device()
    if device == "cuda":
        torch.cuda.set_device(number)
        own = torch.cuda.get_device_properties(number)
        return Hardware(device, own.name, (own.major, own.minor), own.total_memory)
    threads = torch.get_num_threads()
    name = "Apple GPU" if device == "mps" else f"CPU, {threads} thread{'s' if threads != 1 else ''}"
    return Hardware(device, name, None)


def count_gpus() -> int:
    """Count the CUDA GPUs that this process may use."""
    return torch.cuda.device_count()


@contextlib.contextmanager
def tensor_float32(hardware: Hardware) -> Iterator[None]:
    """Let the encoder's float32 products use a GPU's TF32 (10 bits of mantissa, several times the speed)."""
    wanted = "high" if hardware.capability is not None and hardware.capability >= (8, 0) else "highest"
    with _matmul_precision(wanted):
        yield


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Compute losses and their gradients with all 23 bits: a distance from TF32 products could be off by a tenth."""
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
