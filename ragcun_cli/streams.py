"""Standard output and error that outlive whoever reads them: a log that dies takes no work with it.

`ragcun train … 2>&1 | head -1`, an ssh or tee that ends, `2>/dev/full` and `>&-` make every later write fail. Here the
first failure turns the stream to /dev/null, for this process and those it starts, and is remembered: files are the log
from there on, and a run's status says so.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

STANDARD = (0, 1, 2)
# The reader has gone, or nobody was ever to read: nothing is lost that anybody waits for.
NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EBADF)


class EnduringStream(io.TextIOWrapper):
    """A text stream whose writes never fail. lost: what made it fall silent."""

    lost: OSError | None = None

    def write(self, text: str) -> int:
        """As `io.TextIOWrapper`; what cannot be written is dropped."""
        try:
            return super().write(text)
        except OSError as error:
            self._fall_silent(error)
            return len(text)

    def flush(self) -> None:
        """As `io.TextIOWrapper`."""
        try:
            super().flush()
        except OSError as error:
            self._fall_silent(error)

    def _fall_silent(self, error: OSError) -> None:
        self.lost = self.lost or error
        # What is still in the buffers goes there too, and what libraries in C write.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def endure() -> None:
    """Let this process's standard streams outlive their readers. Called first, by every process of ours."""
    closed = [number for number in STANDARD if not _is_open(number)]
    for _ in closed:  # the lowest free number is taken, so that no file of ours becomes standard output
        os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _enduring(sys.stdout, 1), _enduring(sys.stderr, 2)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if number in closed and isinstance(stream, EnduringStream):
            stream.lost = OSError(errno.EBADF, os.strerror(errno.EBADF))


def lost_log() -> str:
    """Which stream has fallen silent and why, such as `stderr: Broken pipe`; empty if none has."""
    return "; ".join(
        f"{name}: {stream.lost.strerror}"
        for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr))
        if isinstance(stream, EnduringStream) and stream.lost is not None
    )


def lost_results() -> OSError | None:
    """Why results that somebody waits for did not reach standard output; None where nobody does."""
    error = sys.stdout.lost if isinstance(sys.stdout, EnduringStream) else None
    return error if error is not None and error.errno not in NOBODY_READS else None


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _enduring(stream: Any, number: int) -> Any:
    if stream is None:  # what Python makes of a closed one
        return EnduringStream(io.BufferedWriter(io.FileIO(number, "w", closefd=False)), "utf-8", line_buffering=True)
    if type(stream) is not io.TextIOWrapper:  # another program's, such as a test's
        return stream
    encoding, errors, by_lines = stream.encoding, stream.errors, stream.line_buffering
    return EnduringStream(stream.detach(), encoding, errors, line_buffering=by_lines)
