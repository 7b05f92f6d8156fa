"""Run beside the experiment: copy results and logs to the bucket, report progress, and stop the run if needed.

It stops the run if EC2 reclaims the machine, if the GPUs have been idle for too long, or if --max-hours is nearly
over. The current part is then asked to end, as by Ctrl-C, and run.sh finds the reason in state/stop.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ragcun_cli import files
from ragcun_cli.aws import names
from ragcun_cli.aws.calls import AwsError
from ragcun_cli.aws.machine.inputs import EMBEDDINGS
from ragcun_cli.aws.machine.node_context import STATE, NodeContext
from ragcun_cli.aws.record import (
    CHECKPOINTS,
    FILES,
    IDLE,
    INTERRUPTED,
    MIRRORED,
    OUT_OF_TIME,
    RUNNING,
    STATUS_FILE,
    RunRecord,
    keys_of_folder,
    now,
)
from ragcun_cli.runs.folder import METRICS, SPEED, STATUS, whole_records
from ragcun_cli.runs.status import Status
from ragcun_cli.spot import NOTICE, POLL_SECONDS, MetadataService, metadata_address
from ragcun_cli.storage.snapshots import folders_in, remove_folder, upload_folder

SECONDS_BETWEEN_UPLOADS = 20.0
SECONDS_TO_SAVE = 600.0  # before the machine's own timer fires fires
IDLE_PERCENT = 5.0
# Stages in which the GPUs should be busy; downloads and the report use none.
BUSY_STAGES = ("training", "evaluating")
MOST_EVENTS, MOST_BYTES = 1000, 500_000  # per request to CloudWatch Logs, well below AWS's limits


@dataclass
class Uploader:
    """Copies what has changed. is_first: whether this node reports for the run."""

    record: RunRecord
    folder: Path
    is_first: bool = True
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def mirror(self) -> None:
        """Upload new or changed results, reports and logs, then the list of all with their digests."""
        changed = False
        for key, path in self._files().items():
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if self._seen.get(key) != (stat.st_mtime_ns, stat.st_size):
                    content = path.read_bytes()
                    self.record.write(key, content)
                    self.listed[key] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                    self._seen[key] = (stat.st_mtime_ns, stat.st_size)
                    changed = True
        if changed and self.is_first:
            self.record.write_json(FILES, {"files": self.listed})

    def _files(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for name in MIRRORED:
            found |= keys_of_folder(self.folder / name, name)
        for trackers in (self.folder / CHECKPOINTS).glob("*/trackers"):
            found |= keys_of_folder(trackers, f"logs/{trackers.parent.name}/trackers")
        trainings = sorted((self.folder / CHECKPOINTS).glob("*.log"))
        return found | {f"logs/{path.name}": path for path in trainings}

    def keep_embeddings(self, cache: Path) -> None:
        """Upload blocks encoded since the last finished dataset: an interrupted evaluation resumes from them."""
        store = self.record.caches()
        results = [path.stat().st_mtime for path in (self.folder / "results").glob("*/*.json")]
        last = max(results, default=0.0)
        blocks = {path.parent for path in (cache / EMBEDDINGS).glob("*/*/manifest.json") if path.stat().st_mtime > last}
        wanted = {block.relative_to(cache).as_posix(): block for block in blocks}
        for key, block in wanted.items():
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile to make room
                upload_folder(store, block, key)
        for key in folders_in(store, f"{EMBEDDINGS}/"):
            if key not in wanted:
                remove_folder(store, key)


@dataclass
class LogStream:
    """Sends the new lines of a log to CloudWatch."""

    record: RunRecord
    region: str
    name: str
    path: Path
    _done: int = 0
    _made: bool = False

    def send(self) -> None:
        """Send the new lines that are complete."""
        group = names.log_group_name(self.record.run)
        stream = {"logGroupName": group, "logStreamName": self.name}
        if not self._made:
            existing = ("ResourceAlreadyExistsException",)
            self.record.aws.ask("logs", "create_log_stream", stream, region=self.region, absent=existing)
            self._made = True
        with self.path.open("rb") as log:
            log.seek(self._done)
            text = log.read(MOST_BYTES)
        whole = text[: text.rfind(b"\n") + 1] or (text if len(text) == MOST_BYTES else b"")
        lines = whole.decode(errors="replace").splitlines()[:MOST_EVENTS]
        taken = len(whole) if len(lines) < MOST_EVENTS else len("\n".join(lines).encode()) + 1
        stamp = int(time.time() * 1000)
        events = [{"timestamp": stamp, "message": line[:MOST_BYTES]} for line in lines if line.strip()]
        if events:
            self.record.aws.call("logs", "put_log_events", {**stream, "logEvents": events}, region=self.region)
        self._done += taken


def trainings(folder: Path) -> list[dict[str, Any]]:
    """Return each training's progress: name, state, step, total_steps, loss, best_score, where known."""
    found = []
    for path in sorted((folder / CHECKPOINTS).glob(f"*/{STATUS}")):
        entry: dict[str, Any] = {"name": path.parent.name}
        if (status := Status.find(path)) is not None:
            content = status.content()
            entry |= {key: content[key] for key in ("state", "step", "total_steps", "best_score")}
        for name, keys in ((METRICS, ("step", "loss")), (SPEED, ("triples_per_second",))):
            for last in whole_records(path.parent / name)[-1:]:
                entry |= {key: last[key] for key in keys if key in last}
        found.append(entry)
    return found


def gpu_use() -> float | None:
    """Return the busiest GPU's utilisation in per cent, or None if there is no GPU."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return max(float(line) for line in done.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def ask_to_end(reason: str, state: str, signalled: set[int]) -> None:
    """Record the reason for run.sh, and end what it is running: training saves and exits with code 75.

    Called again, it ends what has started since. signalled: processes already signalled; a second signal would keep
    them from saving.
    """
    if not (STATE / "stop").exists():
        print(f"ragcun: {reason}: stopping", flush=True)
        files.write_text(STATE / "stop-as", state)
        files.write_text(STATE / "stop", reason)
    with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
        part = psutil.Process(int((STATE / "process").read_text()))
        # A function of the script runs in a subshell, which would not pass the signal on.
        commands = part.children() if part.name().startswith("bash") else [part]
        for command in commands:
            if command.pid not in signalled:
                signalled.add(command.pid)
                command.send_signal(signal.SIGTERM)


@dataclass
class Watch:
    """Checks every few seconds whether the run must end."""

    here: NodeContext
    address: str | None
    busy: float = field(default_factory=time.monotonic)
    _must_end: tuple[str, str] | None = None
    _signalled: set[int] = field(default_factory=set)

    def look(self) -> None:
        """Ask the run to end if it must."""
        self._must_end = self._must_end or self._reason()
        if self._must_end is not None:
            ask_to_end(*self._must_end, self._signalled)

    def _reason(self) -> tuple[str, str] | None:
        """Return why the run must end and the resulting state, or None."""
        if notice := self._notice():
            return f"EC2 is reclaiming this machine: {notice}", INTERRUPTED
        if time.time() > self.here.end - SECONDS_TO_SAVE:
            return "--max-hours is nearly over", OUT_OF_TIME
        use = gpu_use()
        if use is None or use >= IDLE_PERCENT or stage() not in BUSY_STAGES:
            self.busy = time.monotonic()
        elif time.monotonic() - self.busy > self.here.idle_minutes * 60:
            return f"the GPUs were idle for {self.here.idle_minutes:g} minutes", IDLE
        return None

    def _notice(self) -> str:
        if self.address is None:
            return ""
        with contextlib.suppress(OSError):  # briefly unreachable: no notice
            content = MetadataService(self.address).read(NOTICE)
            return " ".join((content or "").replace('"', "").split())
        return ""


def stage() -> str:
    """Return the stage that run.sh is in."""
    with contextlib.suppress(OSError):
        return (STATE / "stage").read_text(encoding="utf-8").strip()
    return ""


def ending() -> dict[str, Any] | None:
    """Return what run.sh writes at its end, or None before that."""
    with contextlib.suppress(OSError, ValueError):
        content: dict[str, Any] = json.loads((STATE / "over").read_text(encoding="utf-8"))
        return content
    return None


def describe(here: NodeContext, folder: Path, over: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the content of status.json."""
    return {
        "state": RUNNING,
        "exit_code": None,
        "reason": "",
        **(over or {}),
        "stage": stage(),
        "attempt": here.attempt,
        "instance": here.instance,
        "updated": now().isoformat(),
        "trainings": trainings(folder),
        "datasets_done": sorted(
            f"{path.parent.name}/{path.stem}"
            for path in (folder / "results").glob("*/*.json")
            if path.stem not in ("model", "isotropy")
        ),
    }


def run(here: NodeContext, log: Path, folder: Path, cache: Path) -> None:
    """Upload until run.sh is over. A failed upload is reported and retried with the next."""
    record = here.record()
    previous = record.read_json(FILES) or {}
    uploader = Uploader(record, folder, is_first_node(), dict(previous.get("files", {})))
    stream = LogStream(record, here.region, f"{here.attempt}-{here.instance}", log)
    watch = Watch(here, metadata_address())
    threading.Thread(target=_keep_embeddings, args=(uploader, cache), name="embeddings", daemon=True).start()
    next_upload = 0.0
    while (over := ending()) is None:
        watch.look()
        if time.monotonic() >= next_upload:
            _upload(uploader, stream, here, None)
            next_upload = time.monotonic() + SECONDS_BETWEEN_UPLOADS
        time.sleep(POLL_SECONDS)
    for pause in (1, 5, 20, 60, 0):  # the final upload must succeed
        if _upload(uploader, stream, here, over):
            return
        time.sleep(pause)
    raise OSError("the final upload failed")


def _upload(uploader: Uploader, stream: LogStream, here: NodeContext, over: Mapping[str, Any] | None) -> bool:
    """Upload everything; return whether it arrived, apart from the log stream, which must not block anything."""
    key = _status_key(uploader, here)
    parts: tuple[tuple[str, Callable[[], None]], ...] = (
        ("the log", stream.send),
        ("results", uploader.mirror),
        ("the state", lambda: uploader.record.write_json(key, describe(here, uploader.folder, over))),
    )
    failed = []
    for name, send in parts:
        if over is not None and "results" in failed:
            continue  # a run is not over until its results are uploaded
        try:
            send()
        except (AwsError, OSError) as error:
            failed.append(name)
            print(f"ragcun: {name} could not be uploaded and will be retried: {error}", flush=True)
    return set(failed) <= {"the log"}


def is_first_node() -> bool:
    """Return whether this is node 0 of several, or the only node."""
    with contextlib.suppress(OSError):
        return (STATE / "rank").read_text(encoding="utf-8").strip() == "0"
    return True


def _status_key(uploader: Uploader, here: NodeContext) -> str:
    """Return the key of this node's status: the first node reports for the run, the others have their own files."""
    return STATUS_FILE if uploader.is_first else f"nodes/{here.attempt}/states/{here.instance}.json"


def _keep_embeddings(uploader: Uploader, cache: Path) -> None:
    """Run in a separate thread: large blocks must delay neither the log nor the check for a spot notice."""
    while True:
        time.sleep(SECONDS_BETWEEN_UPLOADS)
        if stage() == "evaluating":
            try:
                uploader.keep_embeddings(cache)
            except (AwsError, OSError) as error:
                print(f"ragcun: embeddings could not be saved: {error}", flush=True)


def main() -> None:
    """Entry point of `python -m`; its argument is the log's path."""
    try:
        run(NodeContext.read(), Path(sys.argv[1]), Path(), Path(os.environ["RAGCUN_CACHE"]))
    except Exception:
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main()
