"""Check the machine apart from its GPUs: cores, memory, shared memory, open files, disks, network."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from ragcun_cli.data.registry import SERVER
from ragcun_cli.environment import free_memory_of_machine
from ragcun_cli.preflight.checks import FAILED, OK, REMARK, Check
from ragcun_cli.quantities import shown_bytes

LEAST_MEMORY = 2 << 30  # torch, a model of BERT's size and the optimiser's moments
LEAST_FREE = 10 << 30  # on a disk; a recipe's estimate says what it really needs
LEAST_SHARED_MEMORY = 64 << 20  # Docker's default; the processes of several GPUs exchange data through it
LEAST_OPEN_FILES = 1024
SAMPLE_BYTES = 64 << 20  # written and read to measure a disk's speed
BLOCK_BYTES = 8 << 20
SLOWEST_DISK = 20e6  # bytes per second; below it, a checkpoint of BERT's size takes more than a minute
SHARED_MEMORY = Path("/dev/shm")
HUB = "https://huggingface.co"
SECONDS_TO_ANSWER = 5


def check_cores_and_memory(processes: int) -> Check:
    """Check the cores and memory that this process may use, which may be less than the machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free, whole = free_memory_of_machine(), psutil.virtual_memory().total
    seen = f"{cores} cores, {shown_bytes(free)} of {shown_bytes(whole)} memory free"
    if free < LEAST_MEMORY:
        return Check("cores, memory", FAILED, seen, f"Free {shown_bytes(LEAST_MEMORY)}: close other programs.")
    if processes > cores:
        return Check(
            "cores, memory", REMARK, seen, f"{processes} processes share them: training will wait for the CPU."
        )
    return Check("cores, memory", OK, seen)


def check_limits(processes: int) -> list[Check]:
    """Check shared memory and the limit of open files."""
    found = []
    if SHARED_MEMORY.is_dir():
        size = shutil.disk_usage(SHARED_MEMORY).total
        few = size <= LEAST_SHARED_MEMORY and processes > 1
        cure = "docker run --shm-size=1g, or --ipc=host" if few else ""
        found.append(Check("shared memory", REMARK if few else OK, shown_bytes(size), cure))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft < LEAST_OPEN_FILES
    cure = f"ulimit -n {min(65_536, hard) if hard > 0 else 65_536}" if few else ""
    found.append(Check("open files", REMARK if few else OK, f"{soft} at a time", cure))
    return found


@dataclass(frozen=True)
class Disk:
    """A disk: what is kept there, such as `checkpoints, data`; its speed in bytes a second; and its free bytes."""

    uses: str
    folder: Path
    writes: float
    reads: float
    free: int


def measure_disks(places: Sequence[tuple[str, Path]]) -> list[Disk]:
    """Measure, once each, the disks of the given places (use and folder, which need not exist yet).

    Raises:
        OSError: if one cannot be written to.
    """
    by_disk: dict[int, tuple[list[str], Path]] = {}
    for use, place in places:
        folder = nearest_folder(place)
        uses, _ = by_disk.setdefault(folder.stat().st_dev, ([], folder))
        if use not in uses:
            uses.append(use)
    return [
        Disk(", ".join(uses), folder, *_speed(folder), shutil.disk_usage(folder).free)
        for uses, folder in by_disk.values()
    ]


def check_disk(disk: Disk) -> Check:
    """Check that a disk has room and is not too slow."""
    name = f"disk for {disk.uses}"
    seen = f"{shown_bytes(disk.free)} free, writes {disk.writes / 1e6:.0f} and reads {disk.reads / 1e6:.0f} MB/s"
    if disk.free < LEAST_FREE:
        return Check(name, FAILED, f"{disk.folder}: {seen}", f"Free {shown_bytes(LEAST_FREE)}.")
    if disk.writes < SLOWEST_DISK:
        return Check(name, REMARK, seen, "Checkpoints will take minutes: set output_dir to a faster disk.")
    return Check(name, OK, seen)


def nearest_folder(place: Path) -> Path:
    """Return the folder itself, or its nearest parent that exists."""
    return next(each for each in (place.absolute(), *place.absolute().parents) if each.is_dir())


def _speed(folder: Path) -> tuple[float, float]:
    """Return bytes a second of writing to the disk and of reading back, uncached where the system allows it."""
    block = os.urandom(BLOCK_BYTES)
    with tempfile.TemporaryFile(dir=folder, prefix=".ragcun-disk-") as file:
        started = time.perf_counter()
        for _ in range(SAMPLE_BYTES // BLOCK_BYTES):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter() - started
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        started = time.perf_counter()
        while file.read(BLOCK_BYTES):
            pass
        read = time.perf_counter() - started
    return SAMPLE_BYTES / written, SAMPLE_BYTES / read


def check_network() -> list[Check]:
    """Check that the servers answer. One that does not is only a remark: other checks find missing files."""
    hub = os.environ.get("HF_ENDPOINT", HUB)
    mirrored = " (HF_ENDPOINT)" if "HF_ENDPOINT" in os.environ else ""
    return [
        _check_server("hub", hub, mirrored, "set base_model to a folder, or HF_ENDPOINT to a mirror"),
        _check_server("BEIR's server", SERVER, "", "use `ragcun data download --mirror URL|DIR`"),
    ]


def _check_server(name: str, address: str, mirrored: str, otherwise: str) -> Check:
    import requests

    where = urlsplit(address).netloc or address
    try:
        # Any answer will do: the server is up.
        status = requests.head(address, timeout=SECONDS_TO_ANSWER, allow_redirects=False).status_code
    except (requests.RequestException, ValueError) as error:
        reason = type(error).__name__
        return Check(name, REMARK, f"{where}{mirrored} cannot be reached ({reason})", f"Without it, {otherwise}.")
    return Check(name, OK, f"{where}{mirrored} answers ({status})")
