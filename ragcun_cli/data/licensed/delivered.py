"""Finding and opening what an owner delivered, whatever it is packed in."""

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
    """The files below `root` with such a name, in any case, sorted.

    Raises:
        UsageError: if there is none; `what` says where it comes from.
    """
    found = [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and any(fnmatch.fnmatch(path.name.lower(), pattern) for pattern in patterns)
    ]
    if not found:
        raise UsageError(f"{root}: there is no {' or '.join(patterns)} below it", what)
    return found


def find_one(root: Path, patterns: tuple[str, ...], what: str) -> Path:
    """The only such file.

    Raises:
        UsageError: if there is none, or more than one.
    """
    found = find(root, patterns, what)
    if len(found) > 1:
        raise UsageError(f"{root}: which one? {', '.join(str(path) for path in found)}", "Leave one of them there.")
    return found[0]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes: plain, or out of gzip, a zip of one file, or unix compress.

    Raises:
        DataError: if what it is packed in is damaged.
        EnvironmentUnfit: if there is no `gzip` to unpack unix compress with.
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
                        raise DataError(f"{path}: {len(members)} files are in it, one is expected", "Unpack it first.")
                    with archive.open(members[0]) as inner:
                        yield cast(BinaryIO, inner)
            elif start[:2] == COMPRESS:
                yield io.BytesIO(_uncompressed(path))
            else:
                yield stream
        except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: damaged, or not all of it is there ({error})", "Get it again.") from None


def text_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        DataError: if it is no UTF-8.
    """
    with opened(path) as stream:
        try:
            return stream.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None


def text_of_markup(markup: str) -> str:
    """What a reader sees of HTML or SGML: without tags, entities as their characters."""
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
    """By gzip, which everywhere but on Windows is there and reads unix compress; Python's library does not."""
    program = shutil.which("gzip")
    if program is None:
        raise EnvironmentUnfit(f"{path}: packed by unix compress, and there is no gzip here", "Unpack it elsewhere.")
    done = subprocess.run([program, "-dc"], input=path.read_bytes(), capture_output=True)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()
        raise DataError(f"{path}: damaged, or not all of it is there ({reason})", "Get it again.")
    return done.stdout
