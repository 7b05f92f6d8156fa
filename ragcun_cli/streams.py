"""Keep standard output and error usable after their reader has gone, so that a lost log stops no work.

`ragcun train … 2>&1 | head -1`, an ssh or tee that ends, `2>/dev/full` and `>&-` make every later write fail. Here the
first failure redirects the stream to /dev/null, for this process and its children, and is remembered. From then on the
log is only in files, and a run's status says so.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

STANDARD = (0, 1, 2)
# The reader has gone or there never was one, so nobody is waiting for what is lost.
NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EBADF)


class EnduringStream(io.TextIOWrapper):
    """A text stream whose writes never fail. lost: the error that silenced it."""

    lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write like `io.TextIOWrapper`, but drop what cannot be written."""
        try:
            return super().write(text)
        except OSError as error:
            self._fall_silent(error)
            return len(text)

    def flush(self) -> None:
        """Flush like `io.TextIOWrapper`, but never fail."""
        try:
            super().flush()
        except OSError as error:
            self._fall_silent(error)

    def _fall_silent(self, error: OSError) -> None:
        self.lost = self.lost or error
        # This also redirects what is still in the buffers and what C libraries write.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def endure() -> None:
    """Let this process's standard streams outlive their readers. Every ragcun process calls this first."""
    closed = [number for number in STANDARD if not _is_open(number)]
    for _ in closed:  # takes the lowest free number, so that no other file becomes standard output
        os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _enduring(sys.stdout, 1), _enduring(sys.stderr, 2)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if number in closed and isinstance(stream, EnduringStream):
            stream.lost = OSError(errno.EBADF, os.strerror(errno.EBADF))


def lost_log() -> str:
    """Return which stream was lost and why, such as `stderr: Broken pipe`, or an empty string."""
    return "; ".join(
        f"{name}: {stream.lost.strerror}"
        for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr))
        if isinstance(stream, EnduringStream) and stream.lost is not None
    )


def lost_results() -> OSError | None:
    """Return why results that somebody waits for did not reach standard output, or None."""
    error = sys.stdout.lost if isinstance(sys.stdout, EnduringStream) else None
    return error if error is not None and error.errno not in NOBODY_READS else None


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _enduring(stream: Any, number: int) -> Any:
    if stream is None:  # Python's value for a closed stream
        return EnduringStream(io.BufferedWriter(io.FileIO(number, "w", closefd=False)), "utf-8", line_buffering=True)
    if type(stream) is not io.TextIOWrapper:  # replaced by another program, such as a test
        return stream
    encoding, errors, by_lines = stream.encoding, stream.errors, stream.line_buffering
    return EnduringStream(stream.detach(), encoding, errors, line_buffering=by_lines)
