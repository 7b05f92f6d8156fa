"""Download several files at once: skip existing ones, check disk space, lock each file, report failures together."""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ragcun_cli.console import ByteProgress, note, saying_if_interrupted
from ragcun_cli.data.fetch.receipts import read_receipt, write_receipt
from ragcun_cli.data.fetch.sources import RetryPolicy
from ragcun_cli.data.fetch.transfer import DownloadStopped, DownloadTask, digest_like, transfer
from ragcun_cli.errors import DataError, EnvironmentUnfit, RagcunError
from ragcun_cli.quantities import megabytes

REFRESH_SECONDS = 0.2
STOPPED = "Stopped. Partial files are kept as .part; run the same command to continue."
SPARE_BYTES = 64 << 20  # disk space to leave free


class SomeNotFetched(RagcunError):
    """Some files were downloaded and some were not."""


def fetch_all(
    root: Path,
    wanted: Sequence[DownloadTask],
    jobs: int,
    patience: RetryPolicy,
    overwrite: bool = False,
    more_bytes: int = 0,
) -> None:
    """Download the missing files, and check the existing ones.

    A failing file does not stop the others. Ctrl-C stops all and keeps partial files.

    Args:
        root: the data folder, which contains the receipts.
        jobs: number of files at a time.
        overwrite: whether to replace existing files with other content or without a checksum.
        more_bytes: what will be written in addition after the downloads.

    Raises:
        EnvironmentUnfit: if there is not enough disk space, before the first byte.
        RagcunError: naming each file that could not be downloaded.
    """
    missing = [each for each in wanted if not _is_here(root, each, overwrite)]
    if not missing:
        return
    _require_room(root, missing, more_bytes)
    waiting: queue.SimpleQueue[DownloadTask] = queue.SimpleQueue()
    for each in missing:
        waiting.put(each)
    before = {each.path: _state(each.path) for each in missing}
    errors: dict[Path, Exception] = {}
    stop = threading.Event()
    sizes = {each.path.name: each.bytes for each in missing}
    with ByteProgress("downloading", sizes) as bar, saying_if_interrupted(STOPPED):
        threads = [
            # Daemon threads, so that one waiting for a silent server does not delay Ctrl-C.
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


def _is_here(root: Path, wanted: DownloadTask, overwrite: bool) -> bool:
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
        f"{wanted.path}: this file has {found}, but the published one has {wanted.digest}",
        "Move it away, or give --overwrite to replace it.",
    )


def _require_room(root: Path, missing: Sequence[DownloadTask], more_bytes: int) -> None:
    to_come = sum(max(0, (each.bytes or each.about) - _part_bytes(each)) for each in missing)
    needed = to_come + more_bytes
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed + SPARE_BYTES > free:
        raise EnvironmentUnfit(
            f"{root}: needs {megabytes(needed)}, but only {megabytes(free)} are free",
            "Free some space, or name a folder on a larger disk with --data-dir.",
        )


def _part_bytes(wanted: DownloadTask) -> int:
    return wanted.part.stat().st_size if wanted.part.is_file() else 0


def _state(path: Path) -> tuple[int, int] | None:
    """Return a state that changes when another process has downloaded the file."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _work(
    root: Path,
    waiting: queue.SimpleQueue[DownloadTask],
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
        except Exception as error:  # reported when all are done
            errors[wanted.path] = error


def _fetch_one(
    root: Path,
    wanted: DownloadTask,
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
    """Let one process at a time download a file; the others wait and then find it."""
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
                note(f"{path}: another ragcun process is downloading it; waiting for it to finish.")
            said = True
    try:
        yield
    finally:
        lock.release()


def _raise_failures(failed: dict[Path, Exception], missing: Sequence[DownloadTask]) -> None:
    if not failed:
        return
    known = [error for error in failed.values() if isinstance(error, RagcunError)]
    if len(missing) == 1 or len(known) < len(failed):  # other errors are bugs, whose traceback is needed
        raise next(error for error in failed.values() if len(known) == len(failed) or error not in known)
    hints = dict.fromkeys(each.hint for each in known)
    error = SomeNotFetched(
        "\n".join(each.message for each in known),
        "\n".join([f"{len(missing) - len(failed)} of {len(missing)} files were downloaded.", *hints]),
    )
    error.exit_code = known[0].exit_code
    error.title = known[0].title
    raise error
