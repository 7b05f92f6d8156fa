"""Copy what a machine makes to the bucket: results, reports, logs, kept embeddings, and how the run stands."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import AwsError
from ragcun_cli.aws.launch_record import RUNNING, STATUS_FILE, MachineStatus, TrainingState, now
from ragcun_cli.aws.machine.brakes import Ending
from ragcun_cli.aws.machine.context import MachineContext
from ragcun_cli.aws.machine.inputs import EMBEDDINGS
from ragcun_cli.aws.record import CHECKPOINTS, FILES, MIRRORED, RunRecord, keys_of_folder
from ragcun_cli.runs.folder import METRICS, SPEED, STATUS, whole_records
from ragcun_cli.runs.status import Status
from ragcun_cli.storage.snapshots import folders_in, remove_folder, upload_folder

SECONDS_BETWEEN_UPLOADS = 20.0
PAUSES_OF_THE_LAST = (1, 5, 20, 60, 0)  # seconds between tries of the last upload, which must succeed
MOST_REASON = 1000  # characters
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


def trainings(folder: Path) -> tuple[TrainingState, ...]:
    """Return each training's progress, as far as known."""
    found = []
    for path in sorted((folder / CHECKPOINTS).glob(f"*/{STATUS}")):
        entry: dict[str, Any] = {"name": path.parent.name}
        if (status := Status.find(path)) is not None:
            content = status.content()
            entry |= {key: content[key] for key in ("state", "step", "total_steps", "best_score")}
        for name, keys in ((METRICS, ("step", "loss")), (SPEED, ("triples_per_second",))):
            for last in whole_records(path.parent / name)[-1:]:
                entry |= {key: last[key] for key in keys if key in last}
        found.append(TrainingState(**entry))
    return tuple(found)


def describe(context: MachineContext, stage: str, ending: Ending | None) -> MachineStatus:
    """Return what this machine says of the run."""
    return MachineStatus(
        state=RUNNING if ending is None else ending.state,
        attempt=context.attempt.number,
        stage=stage,
        reason="" if ending is None else ending.reason[:MOST_REASON],
        exit_code=None if ending is None else ending.exit_code,
        instance=context.instance,
        updated=now().isoformat(),
        trainings=trainings(context.folder),
        datasets_done=tuple(
            sorted(
                f"{path.parent.name}/{path.stem}"
                for path in (context.folder / "results").glob("*/*.json")
                if path.stem not in ("model", "isotropy")
            )
        ),
    )


class Uploads:
    """Uploads in a thread of its own, so that a slow bucket delays no check for a spot notice.

    stage: what the machine is doing, set by the supervisor.
    """

    def __init__(self, context: MachineContext, is_first: bool) -> None:
        """is_first: whether this node reports for the run; the others have their own files."""
        self.stage = "starting"
        self._context = context
        self._uploader = Uploader(context.record, context.folder, is_first, _listed(context.record))
        name = f"{context.attempt.number}-{context.instance}"
        self._stream = LogStream(context.record, context.record.region, name, context.log)
        self._key = STATUS_FILE if is_first else f"nodes/{context.attempt.number}/states/{context.instance}.json"
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (("uploads", self._repeat), ("embeddings", self._keep_embeddings))
        ]

    def start(self) -> None:
        """Start uploading every few seconds."""
        for thread in self._threads:
            thread.start()

    def finish(self, ending: Ending) -> bool:
        """Upload everything a last time, and how the run ended; return whether it arrived."""
        self._over.set()
        for pause in PAUSES_OF_THE_LAST:
            if self.upload(ending):
                return True
            time.sleep(pause)
        return False

    def upload(self, ending: Ending | None) -> bool:
        """Upload everything; return whether it arrived, apart from the log stream, which must not block anything.

        One at a time: what the last one says of the run must stay.
        """
        with self._lock:
            return self._upload(ending)

    def _upload(self, ending: Ending | None) -> bool:
        if ending is None and self._over.is_set():
            return False
        status = describe(self._context, self.stage, ending)
        parts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("the log", self._stream.send),
            ("results", self._uploader.mirror),
            ("the state", lambda: self._context.record.write_json(self._key, status.as_json())),
        )
        failed = []
        for name, send in parts:
            if ending is not None and "results" in failed:
                continue  # a run is not over until its results are uploaded
            if ending is None and self._over.is_set():
                break  # how it ended is said next
            try:
                send()
            except (AwsError, OSError) as error:
                failed.append(name)
                print(f"ragcun: {name} could not be uploaded and will be retried: {error}", flush=True)
        return set(failed) <= {"the log"}

    def _repeat(self) -> None:
        while not self._over.is_set():
            self.upload(None)
            self._over.wait(SECONDS_BETWEEN_UPLOADS)

    def _keep_embeddings(self) -> None:
        """In a separate thread: large blocks must delay nothing else."""
        while not self._over.wait(SECONDS_BETWEEN_UPLOADS):
            if self.stage == "evaluating":
                try:
                    self._uploader.keep_embeddings(self._context.cache)
                except (AwsError, OSError) as error:
                    print(f"ragcun: embeddings could not be saved: {error}", flush=True)


def _listed(record: RunRecord) -> dict[str, dict[str, Any]]:
    """Return what an earlier machine listed, so that this one's list has it too."""
    return {key: {"sha256": digest} for key, digest in record.digests().items()}
