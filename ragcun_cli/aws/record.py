"""A run's prefix in the bucket: what it contains, and how to read and write it.

launch.json             what was requested, and every attempt: region, machines, price, start
status.json             progress, written by the machine: state, stage, step and loss of each training
code/<sha256>.tar.gz    the checkout
recipes/<name>.yaml     the resolved recipes
inputs/…                the user's files
checkpoints/<run>/…     the trainings' backup (storage/snapshots.py)
results/…  report/…  logs/…   as on the machine
files.json              size and sha256 of each file in these three folders
nodes/<attempt>/…       where several nodes find each other
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.build.storage import LAUNCH_FILE, build_object
from ragcun_cli.aws.calls import FORBIDDEN, Aws, AwsError
from ragcun_cli.errors import UsageError
from ragcun_cli.storage.s3 import S3Store

STATUS_FILE = "status.json"
FILES = "files.json"
CHECKPOINTS = "checkpoints"
MIRRORED = ("results", "report", "logs")
FORMAT = 1
CONFLICT = ("PreconditionFailed", "412", "ConditionalRequestConflict")
# States in status.json. A run in one of the last three is not resumed automatically.
RUNNING, INTERRUPTED, FINISHED, FAILED, IDLE, OUT_OF_TIME = (
    "running", "interrupted", "finished", "failed", "idle", "out-of-time",
)  # fmt: skip
TERMINATED = "terminated"  # written by `aws terminate` to launch.json, so that nobody starts another machine meanwhile
ENDED = (FINISHED, FAILED, IDLE, OUT_OF_TIME)


@dataclass(frozen=True)
class Attempt:
    """One request for a run's machines. region, zone, instances and price are empty until they start."""

    number: int
    region: str
    zone: str
    instances: tuple[str, ...]
    dollars_per_hour: float | None
    started: str
    end: str

    def as_json(self) -> dict[str, Any]:
        """Return the entry for launch.json."""
        return {**vars(self), "instances": list(self.instances)}


@dataclass(frozen=True)
class RunRecord:
    """A run's objects in its bucket. region: the bucket's region."""

    aws: Aws
    account: str
    bucket: str
    region: str
    run: str

    @property
    def prefix(self) -> str:
        return names.prefix_of(self.run)

    @property
    def address(self) -> str:
        """The prefix as an s3:// address."""
        return f"s3://{self.bucket}/{self.prefix}"

    def store(self) -> S3Store:
        """Return the store of the run's objects, by key below the prefix."""
        return S3Store(self.aws.client("s3", self.region), self.bucket, self.prefix)

    def caches(self) -> S3Store:
        """Return the store of what can be recomputed."""
        return S3Store(self.aws.client("s3", self.region), self.bucket, names.cache_prefix_of(self.run))

    def read_json(self, key: str) -> dict[str, Any] | None:
        """Return an object below the prefix, or None if it is missing or not JSON."""
        try:
            answer = self._get(key)
            content: dict[str, Any] | None = None if answer is None else json.loads(answer["Body"].read())
        except ValueError:
            return None
        return content

    def _get(self, key: str) -> dict[str, Any] | None:
        request = {"Bucket": self.bucket, "Key": self.prefix + key, "ExpectedBucketOwner": self.account}
        try:
            return self.aws.ask("s3", "get_object", request, region=self.region, absent=("NoSuchKey", "404"))
        except AwsError as error:
            if error.code not in FORBIDDEN or self.store().has(key):
                raise
            return None

    def write_json(self, key: str, content: dict[str, Any]) -> None:
        """Replace an object below the prefix."""
        self.write(key, as_json(content))

    def write(self, key: str, content: bytes) -> None:
        """Replace an object below the prefix."""
        request = build_object(self.bucket, self.account, self.prefix + key, content)
        self.aws.call("s3", "put_object", request, region=self.region)

    def launch(self) -> dict[str, Any] | None:
        """Return launch.json, or None if there is no such run."""
        return self.read_json(LAUNCH_FILE)

    def replace_launch(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Write launch.json if it is unchanged since it was read: of two concurrent changes, one must fail.

        Raises:
            UsageError: if it has changed.
        """
        answer = self._get(LAUNCH_FILE)
        if answer is None or json.loads(answer["Body"].read()) != before:
            raise _changed_just_now(self.run)
        key = self.prefix + LAUNCH_FILE
        request = build_object(self.bucket, self.account, key, as_json(after)) | {"IfMatch": answer["ETag"]}
        try:
            self.aws.call("s3", "put_object", request, region=self.region)
        except AwsError as error:
            if error.code in CONFLICT and self.launch() != after:  # the first response may have been lost
                raise _changed_just_now(self.run) from None
            if error.code not in CONFLICT:
                raise

    def status(self) -> dict[str, Any]:
        """Return status.json, or an empty dictionary if no machine has written it yet."""
        return self.read_json(STATUS_FILE) or {}


def _changed_just_now(run: str) -> UsageError:
    return UsageError(
        f"run {run}: another command has just changed it", f"Check it: ragcun aws status {run}; then try again."
    )


def as_json(content: dict[str, Any]) -> bytes:
    """Encode as indented JSON, with the keys in the given order."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def now() -> datetime.datetime:
    """Return the current time in UTC, in whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def as_time(text: str) -> datetime.datetime:
    """Parse what `isoformat` wrote."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def hours_used(attempts: Sequence[dict[str, Any]], status: dict[str, Any], is_alive: bool) -> float:
    """Return the hours of all attempts so far. One that ended without reporting counts until now or its deadline."""
    total = 0.0
    for attempt in attempts:
        started = as_time(attempt["started"])
        if "ended" in attempt:
            ended = as_time(attempt["ended"])
        elif status.get("attempt") == attempt["number"] and not is_alive and "updated" in status:
            ended = as_time(status["updated"])
        else:
            ended = min(now(), as_time(attempt["end"]))
        total += max(0.0, (ended - started).total_seconds() / 3600)
    return total


def keys_of_folder(folder: Path, below: str) -> dict[str, Path]:
    """Return key and path of a folder's files, except dot-files, which are still being written."""
    return {
        f"{below}/{path.relative_to(folder).as_posix()}": path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
