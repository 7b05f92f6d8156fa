"""One file, from wherever it is to here.

1. It grows as `<name>.part`; beside it `<name>.part.json` says of which version it is a part.
2. After an interruption (a broken connection, a time-out, 429, 503, Ctrl-C, a killed process) it goes on from where it
   is, if the server still has that version; else from the start.
3. Whole, its length and checksum are compared. A wrong file is thrown away and fetched once more, from the start.
4. Only then it gets its name, at once.
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
from ragcun_cli.data.fetch.opening import ConnectionBroken, Opener, RetryPolicy, Stream, open_address
from ragcun_cli.errors import DataError, EnvironmentUnfit


@dataclass(frozen=True)
class Wanted:
    """A file to bring. path: where it goes; address: a URL, or a path on this machine; bytes: None if not known before;
    digest: such as `md5:5f7d…`, None if there is none; published: whether the digest is its publisher's, and not that
    of some copy; headers: of the request; about: bytes, for the room on the disk, where they are not known.
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
        """What there is of it before it is whole."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def part_record(self) -> Path:
        """Of which version the part is."""
        return self.path.with_name(self.path.name + ".part.json")


class DownloadStopped(Exception):
    """Somebody set the stop flag; the part is kept."""


OnBytes = Callable[[int, int | None], None]  # bytes here so far, bytes of the whole


def transfer(wanted: Wanted, patience: RetryPolicy, stop: threading.Event, on_bytes: OnBytes) -> None:
    """Bring the file; whatever happens, no wrong or half file ever has its name.

    Raises:
        EnvironmentUnfit: if the server cannot be reached, refuses, or keeps breaking off; what came is kept.
        DataError: if what arrives is not what was published, twice.
        Stopped: if `stop` was set.
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
        "It is another version, or damaged on the way. If it is what you want, take it yourself and give its path.",
    )


def digest_like(digest: str, path: Path) -> str:
    """The file's, by the same algorithm: `algorithm:hex`."""
    algorithm = digest.partition(":")[0]
    return f"{algorithm}:{files.digest_of_file(path, algorithm)}"


def _arrive(wanted: Wanted, opener: Opener, patience: RetryPolicy, stop: threading.Event, on_bytes: OnBytes) -> None:
    """Until all bytes are here, going on after each interruption."""
    failures, most = 0, _size(wanted.part)
    while True:
        try:
            _continue(wanted, opener, stop, on_bytes)
            return
        except ConnectionBroken as interruption:
            if interruption.useless:
                _discard(wanted)
            here = _size(wanted.part)
            # A server that never gets further than this is not worth asking for ever.
            failures, most = (1, here) if here > most else (failures + 1, most)
            if failures >= patience.attempts:
                kept = f"{here} bytes are kept: the same command goes on from there. " if here else ""
                raise EnvironmentUnfit(
                    f"{wanted.address}: gave up after {failures} attempt{'s' if failures > 1 else ''}: {interruption}",
                    f"{kept}Try again, or another server: --mirror URL|DIR.",
                ) from None
            wait = interruption.wait
            if wait is not None and wait > patience.longest_pause:
                raise EnvironmentUnfit(
                    f"{wanted.address}: the server asks to wait {wait:.0f} s ({interruption})",
                    "Run the same command later; it goes on from where it is.",
                ) from None
            pause = min(patience.pause * 2 ** (failures - 1), patience.longest_pause)
            if stop.wait(wait if wait is not None else pause):
                raise DownloadStopped from None


def _continue(wanted: Wanted, opener: Opener, stop: threading.Event, on_bytes: OnBytes) -> None:
    if wanted.part.is_symlink():  # it would be written through, to wherever it points
        wanted.part.unlink()
    start, validator, total = _resumable(wanted)
    if start and start == wanted.bytes:
        return
    with opener(start, validator) as stream:
        _check_total(wanted, stream, total)
        if start and not stream.start:
            note(
                f"{wanted.path.name}: from the start again: the server has another version than the {start} bytes that "
                "are here, or cannot send a part."
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
            # More than was said is no part of anything.
            useless = here > stream.total
            raise ConnectionBroken(f"the connection ended after {here} of {stream.total} bytes", useless=useless)
        if not stream.end_is_told and wanted.digest is None:
            _discard(wanted)
            raise EnvironmentUnfit(
                f"{wanted.address}: the server does not say how long the file is, and there is no checksum of it",
                "Whether it is whole could not be known. Try another server: --mirror URL|DIR.",
            )


def _write_whole(part: BinaryIO | RawIOBase, block: bytes, wanted: Wanted) -> None:
    """An unbuffered write may take a part of what it is given, as it does where the disk is about full."""
    rest = memoryview(block)
    try:
        while rest:
            rest = rest[part.write(rest) :]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise EnvironmentUnfit(
            f"{wanted.part}: the disk is full ({error.strerror})",
            "Free some space and run the same command: it goes on from what came.",
        ) from None


def _resumable(wanted: Wanted) -> tuple[int, str | None, int | None]:
    """How many bytes of the part can be gone on from, and the validator and length of its version."""
    size = _size(wanted.part)
    record: Any = {}
    with contextlib.suppress(OSError, ValueError):
        record = json.loads(wanted.part_record.read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        record = {}
    validator = record.get("validator") if record.get("address") == wanted.address else None
    if not isinstance(validator, str):
        # Of an unknown version: a checksum would find out in the end, and without one nothing would.
        return (size if wanted.digest is not None and size <= (wanted.bytes or size) else 0), None, None
    return size, validator, record.get("bytes")


def _check_total(wanted: Wanted, stream: Stream, of_part: int | None) -> None:
    """of_part: the length of the version that the part here belongs to."""
    if stream.start and None not in (of_part, stream.total) and of_part != stream.total:
        raise ConnectionBroken("the server sent a part of another version", wait=0, useless=True)
    if wanted.bytes is not None and stream.total is not None and stream.total != wanted.bytes:
        raise DataError(
            f"{wanted.address}: has {stream.total} bytes, the published file {wanted.bytes}",
            "It is another version, or an error page. If it is what you want, take it yourself and give its path.",
        )


def _fault(wanted: Wanted) -> str | None:
    size = _size(wanted.part)
    if wanted.bytes is not None and size != wanted.bytes:
        return f"{size} bytes arrived, the published file has {wanted.bytes}"
    if wanted.digest is None:
        return None
    found = digest_like(wanted.digest, wanted.part)
    return None if found == wanted.digest else f"what arrived has {found}, the published file {wanted.digest}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _discard(wanted: Wanted) -> None:
    wanted.part.unlink(missing_ok=True)
    wanted.part_record.unlink(missing_ok=True)
