"""Several files at once: what is here already, room on the disk, a lock for each, threads, and one account of it."""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ragcun_cli.console import ByteProgress, note, saying_if_interrupted
from ragcun_cli.data.fetch.opening import RetryPolicy
from ragcun_cli.data.fetch.receipts import read_receipt, write_receipt
from ragcun_cli.data.fetch.transfer import DownloadStopped, Wanted, digest_like, transfer
from ragcun_cli.errors import DataError, EnvironmentUnfit, RagcunError
from ragcun_cli.quantities import megabytes

REFRESH_SECONDS = 0.2
STOPPED = "Stopped. What came is kept in .part files: the same command goes on from there."
SPARE_BYTES = 64 << 20  # that a disk should have left


class SomeNotFetched(RagcunError):
    """Some files are here, some are not."""


def fetch_all(
    root: Path, wanted: Sequence[Wanted], jobs: int, patience: RetryPolicy, overwrite: bool = False, more_bytes: int = 0
) -> None:
    """Bring those of the files that are not here, and check those that are.

    A file that fails does not stop the others. Ctrl-C stops all and keeps what came.

    Args:
        root: the data folder, which has the receipts.
        jobs: files at a time.
        overwrite: whether a file that is here with another content, or without a checksum, is replaced.
        more_bytes: what will be written besides, once the files are here.

    Raises:
        EnvironmentUnfit: if the disk has no room for all of them, before the first byte.
        RagcunError: naming each file that is not here in the end.
    """
    missing = [each for each in wanted if not _is_here(root, each, overwrite)]
    if not missing:
        return
    _require_room(root, missing, more_bytes)
    waiting: queue.SimpleQueue[Wanted] = queue.SimpleQueue()
    for each in missing:
        waiting.put(each)
    before = {each.path: _state(each.path) for each in missing}
    errors: dict[Path, Exception] = {}
    stop = threading.Event()
    sizes = {each.path.name: each.bytes for each in missing}
    with ByteProgress("downloading", sizes) as bar, saying_if_interrupted(STOPPED):
        threads = [
            # Daemons: a thread that waits for a silent server must not keep Ctrl-C waiting.
            threading.Thread(target=_work, args=(root, waiting, before, errors, patience, stop, bar), daemon=True)
            for _ in range(min(jobs, len(missing)))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(REFRESH_SECONDS)
                    bar.refresh()
        finally:
            stop.set()
    _raise_failures(errors, missing)


def _is_here(root: Path, wanted: Wanted, overwrite: bool) -> bool:
    if not wanted.path.exists():
        return False
    if wanted.digest is None:
        return not overwrite
    receipt = read_receipt(root, wanted.path)
    if receipt is not None and receipt["digest"] == wanted.digest and receipt["published"] >= wanted.published:
        return True
    found = digest_like(wanted.digest, wanted.path)
    if found == wanted.digest:
        write_receipt(root, wanted.path, wanted.address, wanted.digest, wanted.published)
        return True
    if overwrite:
        return False
    raise DataError(
        f"{wanted.path}: is here with {found}, the published file has {wanted.digest}",
        "Nothing is written over it unasked: move it away, or give --overwrite.",
    )


def _require_room(root: Path, missing: Sequence[Wanted], more_bytes: int) -> None:
    to_come = sum(max(0, (each.bytes or each.about) - _part_bytes(each)) for each in missing)
    needed = to_come + more_bytes
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed + SPARE_BYTES > free:
        raise EnvironmentUnfit(
            f"{root}: {megabytes(needed)} are to come, {megabytes(free)} are free",
            "Free some space, or name a folder on a larger disk with --data-dir.",
        )


def _part_bytes(wanted: Wanted) -> int:
    return wanted.part.stat().st_size if wanted.part.is_file() else 0


def _state(path: Path) -> tuple[int, int] | None:
    """What differs once somebody else has brought the file."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _work(
    root: Path,
    waiting: queue.SimpleQueue[Wanted],
    before: dict[Path, tuple[int, int] | None],
    errors: dict[Path, Exception],
    patience: RetryPolicy,
    stop: threading.Event,
    bar: ByteProgress,
) -> None:
    while not stop.is_set():
        try:
            wanted = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            _fetch_one(root, wanted, before[wanted.path], patience, stop, bar)
        except OSError as error:
            place = error.filename or wanted.path
            errors[wanted.path] = EnvironmentUnfit(f"{place}: {error.strerror or error}", "Check the folder.")
        except Exception as error:  # told when all are done
            errors[wanted.path] = error


def _fetch_one(
    root: Path,
    wanted: Wanted,
    before: tuple[int, int] | None,
    patience: RetryPolicy,
    stop: threading.Event,
    bar: ByteProgress,
) -> None:
    name = wanted.path.name
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    with _only_fetcher(wanted.path, stop):
        came_meanwhile = _state(wanted.path) not in (None, before)  # while we waited for the lock
        if not (came_meanwhile and _is_here(root, wanted, overwrite=False)):
            transfer(wanted, patience, stop, lambda here, whole: bar.update(name, here, whole))
            write_receipt(root, wanted.path, wanted.address, wanted.digest, wanted.published)
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
                raise DownloadStopped from None
            if not said:
                note(f"{path}: another ragcun is bringing it; waiting for that.")
            said = True
    try:
        yield
    finally:
        lock.release()


def _raise_failures(failed: dict[Path, Exception], missing: Sequence[Wanted]) -> None:
    if not failed:
        return
    known = [error for error in failed.values() if isinstance(error, RagcunError)]
    if len(missing) == 1 or len(known) < len(failed):  # any other error is a defect, whose traceback is wanted
        raise next(error for error in failed.values() if len(known) == len(failed) or error not in known)
    hints = dict.fromkeys(each.hint for each in known)
    error = SomeNotFetched(
        "\n".join(each.message for each in known),
        "\n".join([f"{len(missing) - len(failed)} of {len(missing)} files came.", *hints]),
    )
    error.exit_code = known[0].exit_code
    error.title = known[0].title
    raise error
