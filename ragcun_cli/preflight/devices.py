"""Inspect GPUs in a separate process, so that preflight holds none of their memory while others train on them."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.errors import RagcunError
from ragcun_cli.preflight.answering import ask
from ragcun_cli.preflight.checks import FAILED, OK, Check, failed
from ragcun_cli.quantities import shown_bytes

SECONDS_FOR_THE_DRIVER = 20


@dataclass(frozen=True)
class Devices:
    """The GPUs found. gpus: name, memory in bytes and capability of each. broken: the error of the first that fails.

    cuda: the version torch was built for, or None. hardware: what a training would use, as keyword arguments.
    """

    gpus: list[dict[str, Any]]
    broken: str
    cuda: str | None
    hardware: dict[str, Any]


def look() -> Devices:
    """Return the GPUs that torch sees here, after multiplying two matrices on each."""
    import torch

    from ragcun_cli.train.hardware import find_hardware

    gpus: list[dict[str, Any]] = []
    broken = ""
    for number in range(torch.cuda.device_count()):
        try:
            own = torch.cuda.get_device_properties(number)
            gpus.append({"name": own.name, "memory": own.total_memory, "capability": f"{own.major}.{own.minor}"})
            torch.ones(64, 64, device=f"cuda:{number}").matmul(torch.ones(64, 64, device=f"cuda:{number}"))
            torch.cuda.synchronize(number)
        except RuntimeError as error:
            broken = broken or f"GPU {number}: {str(error).splitlines()[0]}"
    hardware = {} if broken else asdict(find_hardware())
    return Devices(gpus, broken, torch.version.cuda, hardware)


def find_devices(scratch: Path, deadline: float) -> Devices:
    """Run `look` in a separate process.

    Raises:
        RagcunError: if that process dies.
    """
    return Devices(**ask("ragcun_cli.preflight.devices", [], scratch / "devices.log", deadline))


def check_gpus(devices: Devices | RagcunError, wanted: int) -> Check:
    """Check that there are as many GPUs as wanted and that they compute."""
    if isinstance(devices, RagcunError):
        return failed("GPUs", devices)
    if devices.broken:
        return Check("GPUs", FAILED, devices.broken, "See nvidia-smi; try another driver, or a restart.")
    if len(devices.gpus) < wanted:
        cure = f"Does torch (CUDA {devices.cuda}) match the NVIDIA driver ({_driver() or 'nvidia-smi'})?"
        return Check("GPUs", FAILED, f"{len(devices.gpus)} of {wanted} found", cure)
    if not devices.gpus:
        return Check("GPUs", OK, "none: training runs on the CPU, in float32")
    kinds = [f"{each['name']} {shown_bytes(each['memory'])}, capability {each['capability']}" for each in devices.gpus]
    shown = "; ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    return Check("GPUs", OK, f"{shown}; driver {_driver() or 'not known'}, CUDA {devices.cuda}")


def _driver() -> str:
    """Return the NVIDIA driver's version, or an empty string if it is not known."""
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=SECONDS_FOR_THE_DRIVER).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter(said.split()), "")


def count_processes(devices: Devices | RagcunError) -> int:
    """Return how many processes a training starts here by default."""
    return 1 if isinstance(devices, RagcunError) else max(1, len(devices.gpus))


if __name__ == "__main__":
    print(json.dumps(asdict(look())))
