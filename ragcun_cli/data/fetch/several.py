"""Several files at once: what is here already, room on the disk, a lock for each, threads, and one account of it."""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ragcun_cli.console import ByteProgress, note
from ragcun_cli.data.fetch.opening import Patience
from ragcun_cli.data.fetch.receipts import read_receipt, write_receipt
from ragcun_cli.data.fetch.transfer import Stopped, Wanted, digest_of, transfer
from ragcun_cli.errors import DataError, EnvironmentUnfit, RagcunError
from ragcun_cli.quantities import shown_bytes

SECONDS_BETWEEN_LOOKS = 0.2
SPARE_BYTES = 64 << 20  # that a disk should have left


class SomeNotFetched(RagcunError):
    """Some files are here, some are not."""


@dataclass
class _Outcome:
    error: Exception | None = None


def fetch_all(root: Path, wanted: Sequence[Wanted], jobs: int, patience: Patience, overwrite: bool = False) -> None:
    """Bring those of the files that are not here, and check those that are.

    A file that fails stops no other. Ctrl-C stops all and keeps what came.

    Args:
        root: the data folder, which has the receipts.
        jobs: files at a time.
        overwrite: whether a file that is here with another content is replaced.

    Raises:
        EnvironmentUnfit: if the disk has no room for all of them, before the first byte.
        RagcunError: naming each file that is not here in the end.
    """
    missing = [each for each in wanted if not _is_here(root, each, overwrite)]
    if not missing:
        return
    _require_room(root, missing)
    waiting: queue.SimpleQueue[Wanted] = queue.SimpleQueue()
    for each in missing:
        waiting.put(each)
    outcomes = {each.path: _Outcome() for each in missing}
    stop = threading.Event()
    with ByteProgress("downloading", {each.path.name: each.bytes for each in missing}) as bar:
        threads = [
            # Daemons: a thread that waits for a silent server must not keep Ctrl-C waiting.
            threading.Thread(target=_work, args=(root, waiting, outcomes, patience, stop, bar), daemon=True)
            for _ in range(min(jobs, len(missing)))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(SECONDS_BETWEEN_LOOKS)
                    bar.refresh()
        except KeyboardInterrupt:
            stop.set()
            note("Stopped. What came is kept in .part files: the same command goes on from there.")
            raise
    _raise_failures(outcomes, missing)


def _is_here(root: Path, wanted: Wanted, overwrite: bool) -> bool:
    if not wanted.path.exists():
        return False
    receipt = read_receipt(root, wanted.path)
    if receipt is not None and wanted.digest in (None, receipt["digest"]):
        return True
    if wanted.digest is None:
        return True
    found = digest_of(wanted.path, wanted.digest.partition(":")[0])
    if found == wanted.digest:
        write_receipt(root, wanted.path, wanted.address, wanted.digest)
        return True
    if overwrite:
        return False
    raise DataError(
        f"{wanted.path}: is here with {found}, the published file has {wanted.digest}",
        "Nothing is written over it unasked: move it away, or give --overwrite.",
    )


def _require_room(root: Path, missing: Sequence[Wanted]) -> None:
    needed = sum(max(0, (each.bytes or 0) - _part_bytes(each)) for each in missing)
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed + SPARE_BYTES > free:
        raise EnvironmentUnfit(
            f"{root}: {shown_bytes(needed)} are to come, {shown_bytes(free)} are free",
            "Free some space, or name a folder on a larger disk with --data-dir.",
        )


def _part_bytes(wanted: Wanted) -> int:
    return wanted.part.stat().st_size if wanted.part.is_file() else 0


def _work(
    root: Path,
    waiting: queue.SimpleQueue[Wanted],
    outcomes: dict[Path, _Outcome],
    patience: Patience,
    stop: threading.Event,
    bar: ByteProgress,
) -> None:
    while not stop.is_set():
        try:
            wanted = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            _fetch_one(root, wanted, patience, stop, bar)
        except Exception as error:  # told when all are done
            outcomes[wanted.path].error = error


def _fetch_one(root: Path, wanted: Wanted, patience: Patience, stop: threading.Event, bar: ByteProgress) -> None:
    name = wanted.path.name
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    with _only_fetcher(wanted.path, stop):
        if read_receipt(root, wanted.path) is None or not wanted.path.exists():  # not while we waited for the lock
            transfer(wanted, patience, stop, lambda here, whole: bar.update(name, here, whole))
            write_receipt(root, wanted.path, wanted.address, wanted.digest)
        bar.finish(name)


@contextlib.contextmanager
def _only_fetcher(path: Path, stop: threading.Event) -> Iterator[None]:
    """One process at a time fetches a file; the others wait, and then find it here."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    said = False
    while True:
        try:
            lock.acquire(timeout=1)
            break
        except Timeout:
            if stop.is_set():
                raise Stopped from None
            if not said:
                note(f"{path}: another ragcun is bringing it; waiting for that.")
            said = True
    try:
        yield
    finally:
        lock.release()


def _raise_failures(outcomes: dict[Path, _Outcome], missing: Sequence[Wanted]) -> None:
    failed = {path: outcome.error for path, outcome in outcomes.items() if outcome.error is not None}
    if not failed:
        return
    first = next(iter(failed.values()))
    if len(missing) == 1 or not all(isinstance(error, RagcunError) for error in failed.values()):
        raise first
    known = [error for error in failed.values() if isinstance(error, RagcunError)]
    error = SomeNotFetched(
        "\n".join(each.message for each in known),
        f"{len(missing) - len(failed)} of {len(missing)} files are here. {known[0].hint}",
    )
    error.exit_code = known[0].exit_code
    error.title = known[0].title
    raise error
