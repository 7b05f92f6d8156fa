"""Why a run must end early: EC2's notice, the end of --max-hours, idle GPUs, a stage that takes too long."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ragcun_cli.aws.launch_record import FAILED, IDLE, INTERRUPTED, OUT_OF_TIME, State
from ragcun_cli.aws.machine.stages import Stage
from ragcun_cli.spot import NOTICE, MetadataService

SECONDS_TO_SAVE = 600.0  # before the machine's own timer fires
IDLE_PERCENT = 5.0
SECONDS_BETWEEN_READINGS = 5.0
OLDEST_READING = 60.0  # seconds after which a reading counts as none
SECONDS_TO_READ = 30.0


@dataclass(frozen=True)
class Ending:
    """How a run ends on this machine: the state to report, the exit code of what was stopped or failed, the reason."""

    state: State
    exit_code: int | None
    reason: str


def gpu_use() -> float | None:
    """Return the busiest GPU's utilisation in per cent, or None if nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_READ, check=True)
        return max(float(line) for line in done.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def newest_in(folder: Path) -> float:
    """Return time.time() of the newest change in a run's logs and files, as far as they tell that it gets on."""
    found = 0.0
    for pattern in ("logs/*", "checkpoints/*.log", "checkpoints/*/*.jsonl", "results/*/*", "cache/embeddings/*/*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):  # removed meanwhile
                found = max(found, path.stat().st_mtime)
    return found


class GpuGauge:
    """Reads the GPUs' use in a thread of its own: an nvidia-smi in D state, which not even SIGKILL ends, holds up only
    this thread, and its last reading soon counts as none."""

    def __init__(self, read: Callable[[], float | None] = gpu_use) -> None:
        self._read = read
        self._value: float | None = None
        self._when = time.monotonic()
        threading.Thread(target=self._measure, name="gpu-gauge", daemon=True).start()

    def use(self) -> float | None:
        """Return the last reading in per cent, or None if there is none that is recent."""
        return self._value if time.monotonic() - self._when <= OLDEST_READING else None

    def _measure(self) -> None:
        while True:
            self._value, self._when = self._read(), time.monotonic()
            time.sleep(SECONDS_BETWEEN_READINGS)


@dataclass
class Brakes:
    """Decides whether the run must end. end: time.time() at which --max-hours runs out. gpus: that the machine should
    have; address: of the metadata service, None outside EC2. written: time.time() of the newest thing written."""

    end: float
    idle_minutes: float
    gpus: int
    address: str | None
    use: Callable[[], float | None]
    written: Callable[[], float]
    busy: float = field(default_factory=time.monotonic)

    def reason(self, stage: Stage, seconds: float) -> Ending | None:
        """Return why the run must end now, or None. seconds: since the stage began."""
        if notice := self._notice():
            return Ending(INTERRUPTED, 75, f"EC2 is reclaiming this machine: {notice}")
        if time.time() > self.end - SECONDS_TO_SAVE:
            return Ending(OUT_OF_TIME, 75, "--max-hours is nearly over")
        if stage.longest is not None and seconds > stage.longest:
            return Ending(FAILED, None, f"{stage.name} took longer than {stage.longest / 60:g} minutes")
        if stage.longest_silence is not None and seconds > stage.longest_silence:
            silent = time.time() - self.written()
            if silent > stage.longest_silence:
                return Ending(FAILED, None, f"{stage.name} has written nothing for {silent / 60:.0f} minutes")
        if not stage.uses_gpus or self._is_busy():
            self.busy = time.monotonic()
        elif time.monotonic() - self.busy > self.idle_minutes * 60:
            return Ending(IDLE, 75, f"the GPUs were idle for {self.idle_minutes:g} minutes")
        return None

    def _is_busy(self) -> bool:
        """Whether the GPUs work. GPUs that tell nothing count as idle: a broken driver must not cost for hours."""
        if self.gpus == 0:
            return True
        use = self.use()
        return use is not None and use >= IDLE_PERCENT

    def _notice(self) -> str:
        if self.address is None:
            return ""
        with contextlib.suppress(OSError):  # briefly unreachable: no notice
            return " ".join((MetadataService(self.address).read(NOTICE) or "").split())
        return ""
