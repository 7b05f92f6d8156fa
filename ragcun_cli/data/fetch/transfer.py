"""Download one file.

1. It is written to `<name>.part`; `<name>.part.json` beside it records the version that the part belongs to.
2. After an interruption (a broken connection, a time-out, 429, 503, Ctrl-C, a killed process) it resumes where it
   stopped if the server still has that version; otherwise it restarts.
3. When complete, its length and checksum are verified. A wrong file is discarded and downloaded once more.
4. Only then is it renamed, atomically.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

from ragcun_cli import files
from ragcun_cli.console import note
from ragcun_cli.data.fetch.sources import ConnectionBroken, Opener, RetryPolicy, Stream, open_address
from ragcun_cli.errors import DataError, EnvironmentUnfit


@dataclass(frozen=True)
class DownloadTask:
    """A file to download. path: where it goes; address: a URL or a local path; bytes: size, None if unknown in advance;
    digest: such as `md5:5f7d…`, None if there is none; published: whether the digest is the publisher's and not that
    of a copy; headers: of the request; about: approximate size for the disk-space check if `bytes` is None.
    """

    path: Path
    address: str
    bytes: int | None = None
    digest: str | None = None
    published: bool = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    about: int = 0

    @property
    def part(self) -> Path:
        """Path of the incomplete file."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def part_record(self) -> Path:
        """Path of the record of the part's version."""
        return self.path.with_name(self.path.name + ".part.json")


class DownloadStopped(Exception):
    """The stop flag was set; the part is kept."""


OnBytes = Callable[[int, int | None], None]  # bytes so far, total bytes


def transfer(wanted: DownloadTask, patience: RetryPolicy, stop: threading.Event, on_bytes: OnBytes) -> None:
    """Download the file. Whatever happens, no wrong or incomplete file ever gets its name.

    Raises:
        EnvironmentUnfit: if the server cannot be reached, refuses, or keeps breaking off; the part is kept.
        DataError: if the file differs from the published one twice.
        DownloadStopped: if `stop` was set.
    """
    opener = open_address(wanted.address, wanted.headers, patience)
    problem = ""
    for _ in range(2):
        _arrive(wanted, opener, patience, stop, on_bytes)
        found = _fault(wanted)
        if found is None:
            files.fsync(wanted.part)
            os.replace(wanted.part, wanted.path)
            wanted.part_record.unlink(missing_ok=True)
            files.fsync(wanted.path.parent)
            return
        problem = found
        _discard(wanted)
    raise DataError(
        f"{wanted.address}: {problem}, twice",
        "It is another version, or damaged in transit. If you want it anyway, download it yourself and give its path.",
    )


def digest_like(digest: str, path: Path) -> str:
    """Return the file's digest by the same algorithm, as `algorithm:hex`."""
    algorithm = digest.partition(":")[0]
    return f"{algorithm}:{files.digest_of_file(path, algorithm)}"


def _arrive(
    wanted: DownloadTask, opener: Opener, patience: RetryPolicy, stop: threading.Event, on_bytes: OnBytes
) -> None:
    """Download until all bytes are here, resuming after each interruption."""
    failures, most = 0, _size(wanted.part)
    while True:
        try:
            _continue(wanted, opener, stop, on_bytes)
            return
        except ConnectionBroken as interruption:
            if interruption.useless:
                _discard(wanted)
            here = _size(wanted.part)
            # Give up on a server that makes no progress.
            failures, most = (1, here) if here > most else (failures + 1, most)
            if failures >= patience.attempts:
                kept = f"{here} bytes are kept; run the same command to continue. " if here else ""
                raise EnvironmentUnfit(
                    f"{wanted.address}: gave up after {failures} attempt{'s' if failures > 1 else ''}: {interruption}",
                    f"{kept}Try again, or use another server: --mirror URL|DIR.",
                ) from None
            wait = interruption.wait
            if wait is not None and wait > patience.longest_pause:
                raise EnvironmentUnfit(
                    f"{wanted.address}: the server asks for a wait of {wait:.0f} s ({interruption})",
                    "Run the same command later to continue.",
                ) from None
            pause = min(patience.pause * 2 ** (failures - 1), patience.longest_pause)
            if stop.wait(wait if wait is not None else pause):
                raise DownloadStopped from None


def _continue(wanted: DownloadTask, opener: Opener, stop: threading.Event, on_bytes: OnBytes) -> None:
    if wanted.part.is_symlink():  # writing would follow the link
        wanted.part.unlink()
    start, validator, total = _resumable(wanted)
    if start and start == wanted.bytes:
        return
    with opener(start, validator) as stream:
        _check_total(wanted, stream, total)
        if start and not stream.start:
            note(
                f"{wanted.path.name}: restarting: the server has a different version than the {start} bytes that "
                "are here, or cannot resume."
            )
        if stream.start == 0 or not wanted.part.exists():
            wanted.path.parent.mkdir(parents=True, exist_ok=True)
            wanted.part.write_bytes(b"")
            version = {"address": wanted.address, "validator": stream.validator, "bytes": stream.total}
            files.write_json(wanted.part_record, version)
        here = stream.start
        with wanted.part.open("r+b", buffering=0) as part:
            part.truncate(here)
            part.seek(here)
            for block in stream.blocks:
                _write_whole(part, block, wanted)
                here += len(block)
                on_bytes(here, wanted.bytes or stream.total)
                if stop.is_set():
                    raise DownloadStopped
        if stream.total is not None and here != stream.total:
            # If more arrived than was announced, nothing of it can be used.
            useless = here > stream.total
            raise ConnectionBroken(f"the connection ended after {here} of {stream.total} bytes", useless=useless)
        if not stream.end_is_told and wanted.digest is None:
            _discard(wanted)
            raise EnvironmentUnfit(
                f"{wanted.address}: the server does not state the file's length, and there is no checksum",
                "The download cannot be checked for completeness. Try another server: --mirror URL|DIR.",
            )


def _write_whole(part: BinaryIO | RawIOBase, block: bytes, wanted: DownloadTask) -> None:
    """Write a whole block; an unbuffered write may write only part of it, such as when the disk is nearly full."""
    rest = memoryview(block)
    try:
        while rest:
            rest = rest[part.write(rest) :]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise EnvironmentUnfit(
            f"{wanted.part}: the disk is full ({error.strerror})",
            "Free some space and run the same command to continue.",
        ) from None


def _resumable(wanted: DownloadTask) -> tuple[int, str | None, int | None]:
    """Return how many bytes of the part can be resumed from, and the validator and length of its version."""
    size = _size(wanted.part)
    record: Any = {}
    with contextlib.suppress(OSError, ValueError):
        record = json.loads(wanted.part_record.read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        record = {}
    validator = record.get("validator") if record.get("address") == wanted.address else None
    if not isinstance(validator, str):
        # The version is unknown: only a checksum could detect a mismatch in the end.
        return (size if wanted.digest is not None and size <= (wanted.bytes or size) else 0), None, None
    return size, validator, record.get("bytes")


def _check_total(wanted: DownloadTask, stream: Stream, of_part: int | None) -> None:
    """Check a stream's total length. of_part: length of the version that the local part belongs to."""
    if stream.start and None not in (of_part, stream.total) and of_part != stream.total:
        raise ConnectionBroken("the server sent a part of another version", wait=0, useless=True)
    if wanted.bytes is not None and stream.total is not None and stream.total != wanted.bytes:
        raise DataError(
            f"{wanted.address}: has {stream.total} bytes, but the published file has {wanted.bytes}",
            "It is another version or an error page. If you want it anyway, download it yourself and give its path.",
        )


def _fault(wanted: DownloadTask) -> str | None:
    size = _size(wanted.part)
    if wanted.bytes is not None and size != wanted.bytes:
        return f"{size} bytes arrived, but the published file has {wanted.bytes}"
    if wanted.digest is None:
        return None
    found = digest_like(wanted.digest, wanted.part)
    return None if found == wanted.digest else f"the download has {found}, but the published file has {wanted.digest}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _discard(wanted: DownloadTask) -> None:
    wanted.part.unlink(missing_ok=True)
    wanted.part_record.unlink(missing_ok=True)
