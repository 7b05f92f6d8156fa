"""Choose the training precision for a device; without torch, so that preflight need not load it."""

from __future__ import annotations

from dataclasses import dataclass

from ragcun_cli.errors import EnvironmentUnfit


@dataclass(frozen=True)
class Hardware:
    """The device that Accelerate will use.

    capability: CUDA's, such as (8, 0) for an A100, else None. memory_bytes: the CUDA GPU's, else None.
    """

    device: str
    name: str
    capability: tuple[int, int] | None
    memory_bytes: int | None = None


def choose_precision(asked: str, hardware: Hardware) -> str:
    """Return Accelerate's precision: `no`, `fp16` or `bf16`.

    Raises:
        EnvironmentUnfit: if the device cannot do what the recipe asks for.
    """
    if asked == "auto":
        if hardware.capability is None:
            return "no"
        # torch says that a T4 (7.5) has bf16, but it is emulated and several times slower than fp16.
        return "bf16" if hardware.capability >= (8, 0) else "fp16" if hardware.capability >= (7, 0) else "no"
    if asked == "fp16" and hardware.device != "cuda":
        raise EnvironmentUnfit(
            f"mixed_precision: fp16 needs a CUDA GPU (this is {hardware.name})", "Use mixed_precision: auto."
        )
    too_old = hardware.capability is not None and hardware.capability < (8, 0)
    if asked == "bf16" and (too_old or hardware.device == "mps"):
        raise EnvironmentUnfit(
            f"mixed_precision: {hardware.name} does not support bf16",
            "Use mixed_precision: auto, which uses fp16 here.",
        )
    return asked


def explain_precision(precision: str, hardware: Hardware) -> str:
    """Describe the precision in one phrase, for the plan."""
    return {"no": "float32", "fp16": "fp16 with loss scaling", "bf16": "bf16"}[precision] + f" on {hardware.name}"
