"""How fast devices multiply, by their makers' data sheets."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceSpeed:
    """Dense FLOP/s: of bf16 or fp16 products with float32 sums, and of float32 without TF32."""

    half: float
    single: float


# The first entry whose words a device's name has counts.
DEVICES = {
    "H200": DeviceSpeed(989e12, 67e12),
    "H100 PCIe": DeviceSpeed(756e12, 51e12),
    "H100": DeviceSpeed(989e12, 67e12),
    "A100": DeviceSpeed(312e12, 19.5e12),
    "A10G": DeviceSpeed(70e12, 31.5e12),
    "A10": DeviceSpeed(125e12, 31.2e12),
    "L40S": DeviceSpeed(362e12, 91.6e12),
    "L4": DeviceSpeed(121e12, 30.3e12),
    "V100": DeviceSpeed(125e12, 15.7e12),
    "T4": DeviceSpeed(65e12, 8.1e12),
    "RTX 4090": DeviceSpeed(165e12, 82.6e12),
    "RTX 3090": DeviceSpeed(71e12, 35.6e12),
}


def device_speed(name: str) -> DeviceSpeed | None:
    """Of a device by the name that its driver or AWS gives it, None where it is not known here."""
    words = set(re.split(r"[\s-]+", name))
    return next((speed for known, speed in DEVICES.items() if words.issuperset(known.split())), None)
