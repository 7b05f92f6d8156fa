"""A run's prefix in the bucket: what it contains, and how to read and write it.

launch.json             what was requested, and every attempt (launch_record.py); the machine may only read it
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

import contextlib
import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import FORBIDDEN, Aws, AwsError
from ragcun_cli.aws.launch_record import (
    LAUNCH_FILE,
    STATUS_FILE,
    Attempt,
    LaunchRecord,
    MachineStatus,
    as_time,
    now,
    parse_launch,
    parse_status,
)
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.storage.s3 import S3Store

FILES = "files.json"
CHECKPOINTS = "checkpoints"
MIRRORED = ("results", "report", "logs")
# What the machine makes, and its role may write; all else below the prefix it may only read.
WRITTEN_BY_MACHINE = (STATUS_FILE, FILES, *(f"{name}/*" for name in (*MIRRORED, CHECKPOINTS, "nodes")))
CONFLICT = ("PreconditionFailed", "412", "ConditionalRequestConflict")
LARGEST_RECORD = 8 << 20  # bytes
LEAST_HOURS = 0.1  # that a started machine counts for, whatever it says: AWS bills its start too


@dataclass(frozen=True)
class Reported:
    """What the machine last said, and when S3 received it. status: None if it said nothing that can be read; problem:
    why it cannot be read, if so."""

    status: MachineStatus | None = None
    received: datetime.datetime | None = None
    problem: str = ""


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

    def read_json(self, key: str) -> Any:
        """Return an object below the prefix, or None if it is missing or not JSON."""
        try:
            answer = self._get(key)
            return None if answer is None else json.loads(answer["Body"].read())
        except (ValueError, RecursionError):
            return None

    def _get(self, key: str) -> dict[str, Any] | None:
        """Return S3's answer for an object, at most its first bytes: whoever wrote it chose its size."""
        request = {"Bucket": self.bucket, "Key": self.prefix + key, "ExpectedBucketOwner": self.account}
        limited = request | {"Range": f"bytes=0-{LARGEST_RECORD - 1}"}
        try:
            return self.aws.ask("s3", "get_object", limited, region=self.region, absent=("NoSuchKey", "404"))
        except AwsError as error:
            if error.code in ("InvalidRange", "416"):  # it is empty
                return self.aws.ask("s3", "get_object", request, region=self.region, absent=("NoSuchKey", "404"))
            with as_aws_errors():
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

    def launch(self) -> LaunchRecord | None:
        """Return launch.json, or None if there is no such run.

        Raises:
            DataError: if it is not a launch record.
        """
        answer = self._get(LAUNCH_FILE)
        return None if answer is None else self._parsed(answer["Body"].read())

    def _parsed(self, content: bytes) -> LaunchRecord:
        launch = parse_launch(content, f"{self.address}{LAUNCH_FILE}")
        if (launch.run, launch.account) != (self.run, self.account):
            raise DataError(f"{self.address}{LAUNCH_FILE}: is the record of another run, {launch.run}")
        return launch

    def write_launch(self, launch: LaunchRecord) -> None:
        """Replace launch.json."""
        self.write_json(LAUNCH_FILE, launch.as_json())

    def replace_launch(self, before: LaunchRecord, after: LaunchRecord) -> None:
        """Write launch.json if it is unchanged since it was read: of two concurrent changes, one must fail.

        Raises:
            UsageError: if it has changed.
        """
        answer = self._get(LAUNCH_FILE)
        if answer is None or self._parsed(answer["Body"].read()) != before:
            raise _changed_just_now(self.run)
        key = self.prefix + LAUNCH_FILE
        request = build_object(self.bucket, self.account, key, as_json(after.as_json())) | {"IfMatch": answer["ETag"]}
        try:
            self.aws.call("s3", "put_object", request, region=self.region)
        except AwsError as error:
            if error.code in CONFLICT and self.launch() != after:  # the first response may have been lost
                raise _changed_just_now(self.run) from None
            if error.code not in CONFLICT:
                raise

    def reported(self) -> Reported:
        """Return what the run's machine last said."""
        try:
            answer = self._get(STATUS_FILE)
        except AwsError as error:
            if error.passes:
                raise
            return Reported(problem=error.message)  # its storage class or key may be such that nobody can read it
        if answer is None:
            return Reported()
        received = answer["LastModified"]
        parsed = parse_status(answer["Body"].read())
        if isinstance(parsed, str):
            return Reported(None, received, f"{self.address}{STATUS_FILE}: {parsed}")
        return Reported(parsed, received)

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each uploaded file by its key, as the machine listed them; what is no digest is left
        out."""
        content = self.read_json(FILES)
        listed = content.get("files") if isinstance(content, dict) else None
        if not isinstance(listed, dict):
            return {}
        found = {key: entry.get("sha256") for key, entry in listed.items() if isinstance(entry, dict)}
        return {key: digest for key, digest in found.items() if isinstance(digest, str)}


@contextlib.contextmanager
def as_aws_errors() -> Iterator[None]:
    """Turn a store's OSErrors into AwsErrors, which those who look at runs expect."""
    try:
        yield
    except OSError as error:
        raise AwsError(str(error)) from None


def build_object(bucket: str, account: str, key: str, content: bytes) -> dict[str, Any]:
    """Build the s3:PutObject request; S3 verifies the content's SHA-256 on arrival, and refuses a bucket that another
    account owns."""
    return {
        "Bucket": bucket,
        "ExpectedBucketOwner": account,
        "Key": key,
        "Body": content,
        "ChecksumAlgorithm": "SHA256",
    }


def _changed_just_now(run: str) -> UsageError:
    return UsageError(
        f"run {run}: another command has just changed it", f"Check it: ragcun aws status {run}; then try again."
    )


def as_json(content: dict[str, Any]) -> bytes:
    """Encode as indented JSON, with the keys in the given order."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def end_of(attempt: Attempt, last_sign: datetime.datetime | None) -> datetime.datetime:
    """Return when an attempt's machines ended, now for those that still run. last_sign: when the last one was known to
    be there. Without a sign, the attempt counts until now, at most until its deadline.
    """
    if attempt.ended is not None:
        return as_time(attempt.ended)
    deadline = as_time(attempt.end)
    if last_sign is None:
        return min(now(), deadline)
    least = as_time(attempt.started) + datetime.timedelta(hours=LEAST_HOURS)
    return max(last_sign, min(least, now()))


def hours_used(attempts: Sequence[Attempt], last_sign: datetime.datetime | None) -> float:
    """Return the hours of all attempts so far. last_sign: of the last attempt's machines, as in `end_of`."""
    total = 0.0
    for attempt in attempts:
        ended = end_of(attempt, last_sign if attempt is attempts[-1] else None)
        total += max(0.0, (ended - as_time(attempt.started)).total_seconds() / 3600)
    return total


def keys_of_folder(folder: Path, below: str) -> dict[str, Path]:
    """Return key and path of a folder's files, except dot-files, which are still being written."""
    return {
        f"{below}/{path.relative_to(folder).as_posix()}": path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
