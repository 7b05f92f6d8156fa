"""Find and open files delivered by an owner, whatever their compression."""

from __future__ import annotations

import contextlib
import fnmatch
import gzip
import html.parser
import io
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from ragcun_cli.errors import DataError, EnvironmentUnfit, UsageError

COMPRESS, GZIP, ZIP = b"\x1f\x9d", b"\x1f\x8b", b"PK\x03\x04"


def find(root: Path, patterns: tuple[str, ...], what: str) -> list[Path]:
    """Return the files inside `root` that match a pattern, in any case, sorted.

    Raises:
        UsageError: if there are none; `what` says where to get them.
    """
    found = [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and any(fnmatch.fnmatch(path.name.lower(), pattern) for pattern in patterns)
    ]
    if not found:
        raise UsageError(f"{root}: contains no {' or '.join(patterns)}", what)
    return found


def find_one(root: Path, patterns: tuple[str, ...], what: str) -> Path:
    """Return the only file that matches.

    Raises:
        UsageError: if there is none, or more than one.
    """
    found = find(root, patterns, what)
    if len(found) > 1:
        raise UsageError(f"{root}: has several: {', '.join(str(path) for path in found)}", "Keep one of them there.")
    return found[0]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file's bytes, unpacked from gzip, a single-file zip or unix compress if necessary.

    Raises:
        DataError: if the compressed file is damaged.
        EnvironmentUnfit: if `gzip`, which unpacks unix compress, is not installed.
    """
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(0)
        try:
            if start[:2] == GZIP:
                with gzip.open(stream) as unpacked:
                    yield cast(BinaryIO, unpacked)
            elif start == ZIP:
                with zipfile.ZipFile(stream) as archive:
                    members = [each for each in archive.infolist() if not each.is_dir()]
                    if len(members) != 1:
                        raise DataError(f"{path}: contains {len(members)} files, expected one", "Unpack it first.")
                    with archive.open(members[0]) as inner:
                        yield cast(BinaryIO, inner)
            elif start[:2] == COMPRESS:
                yield io.BytesIO(_uncompressed(path))
            else:
                yield stream
        except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: damaged or incomplete ({error})", "Get it again.") from None


def text_lines(path: Path) -> list[str]:
    """Return the lines of a text file.

    Raises:
        DataError: if it is not UTF-8.
    """
    with opened(path) as stream:
        try:
            return stream.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None


def text_of_markup(markup: str) -> str:
    """Return the visible text of HTML or SGML, without tags and with entities decoded."""
    reader = _TextReader()
    reader.feed(markup)
    reader.close()
    return "".join(reader.pieces)


class _TextReader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def _uncompressed(path: Path) -> bytes:
    """Unpack unix compress with gzip, which every system but Windows has; Python's library cannot."""
    program = shutil.which("gzip")
    if program is None:
        raise EnvironmentUnfit(f"{path}: packed with unix compress, but there is no gzip here", "Unpack it elsewhere.")
    done = subprocess.run([program, "-dc"], input=path.read_bytes(), capture_output=True)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()
        raise DataError(f"{path}: damaged or incomplete ({reason})", "Get it again.")
    return done.stdout
