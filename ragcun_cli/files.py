"""Paths as users write them, and files that are either whole or not there: written under a temporary name first."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import re
import resource
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragcun_cli.errors import EnvironmentUnfit, UsageError

HASH_BLOCK_BYTES = 1 << 20
TOKEN_BYTES = 4  # random, written as hexadecimal digits in temporary names
ANY_TOKEN = "[0-9a-f]" * 2 * TOKEN_BYTES
LONGEST_STEM = 200  # bytes of the original name that a temporary name keeps
HIDDEN = re.compile(r"/\.[^/]*\.[0-9a-f]{8}(\.new|\.tmp|\.old)?(/|$)")  # what temporary names look like


def digest_of_file(path: Path, algorithm: str) -> str:
    """Return a file's hex digest, read in blocks (hashlib.file_digest needs Python 3.11). algorithm: md5 or sha256."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the hex sha256 of a file."""
    return digest_of_file(path, "sha256")


def given_path(path: Path) -> Path:
    """Return the absolute path with links unresolved, even if the shell's current folder is a link."""
    if path.is_absolute():
        return Path(os.path.normpath(path))
    here = Path(os.environ.get("PWD", ""))  # the shell's path, which keeps a link's name; getcwd resolves it
    with contextlib.suppress(OSError):
        if here.is_absolute() and here.samefile(Path.cwd()):
            return Path(os.path.normpath(here / path))
    return Path(os.path.abspath(path))


def given_name(path: Path) -> str:
    """Return the last part of a path as given: a link's own name, not its target's. Also works for `.`."""
    return given_path(path).name


def fsync(path: Path) -> None:
    """Make a file, or a folder's listing, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def destination(path: Path) -> Path:
    """Return where a write to `path` goes: links are followed and kept, even if their target does not exist yet.

    Raises:
        OSError: if links form a loop.
    """
    if path.is_symlink():
        with contextlib.suppress(FileNotFoundError):
            path.stat()  # unlike realpath, raises if links form a loop
    return Path(os.path.realpath(path))


def require_writable(path: Path, needed: int = 0) -> None:
    """Check, before any work, that a file or folder of this name can be written. Leave nothing behind.

    needed: number of bytes that it will take.

    Raises:
        OSError: the error that writing it would raise, with the path.
    """
    target = destination(path)
    nearest = next(each for each in target.parents if each.is_dir() or os.path.lexists(each))
    with _of_path(path):
        nearest.stat()  # raises for a broken link or a loop of links
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        longest = os.pathconf(nearest, "PC_NAME_MAX")
        if any(len(os.fsencode(part)) > longest for part in target.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        descriptor, temporary = _new_file(nearest, target.name)
        os.close(descriptor)
        temporary.unlink()
        if needed > shutil.disk_usage(nearest).free:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: it takes {needed} bytes")
        if needed > largest_file():
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def largest_file() -> float:
    """Return the largest file size in bytes that this process may write (`ulimit -f`)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return math.inf if limit == resource.RLIM_INFINITY else limit


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write. It replaces `path` atomically when the block succeeds.

    A reader sees the old content or the new, never a part. A link is kept and its target replaced.
    """
    target = destination(path)
    if target.exists() and not target.is_file():
        number = errno.EISDIR if target.is_dir() else errno.EINVAL
        raise OSError(number, f"{os.strerror(number)}: not a regular file", str(path))
    with _of_path(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = _new_file(target.parent, target.name)
    os.close(descriptor)
    try:
        with _of_path(path):  # a write error does not name its file
            yield temporary
            fsync(temporary)
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def _of_path(path: Path) -> Iterator[None]:
    """Put the user's path into system errors that name no file or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or HIDDEN.search(str(error.filename))):
            error.filename, error.filename2 = str(path), None
        raise


def _new_file(folder: Path, name: str) -> tuple[int, Path]:
    """Create a unique empty file with the umask's permissions (mkstemp would make it unreadable for others)."""
    path = folder / f".{_shortened(name)}.{_token()}.new"
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), path


def _new_folder(folder: Path, name: str, ending: str) -> Path:
    path = folder / f".{name}.{_token()}{ending}"
    with contextlib.suppress(OSError):  # the name may be too long once extended
        path.mkdir()
        return path
    path = folder / f".{_shortened(name)}.{_token()}{ending}"
    path.mkdir()
    return path


def _token() -> str:
    return secrets.token_hex(TOKEN_BYTES)


def _shortened(name: str) -> str:
    """Shorten a name so that the extended one fits into any file system's 255 bytes."""
    return os.fsencode(name)[:LONGEST_STEM].decode("utf-8", "ignore")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` atomically: a reader sees the old content or the new, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Replace a UTF-8 text file atomically. Non-UTF-8 bytes of file names become escapes, which JSON reads back."""
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically, indented and with keys in the order given."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `final` to fill. It takes the final name when the block succeeds.

    An existing `final` is replaced only then; a link is kept. If the block raises, nothing is left behind.
    """
    target = destination(final)
    with _of_path(final):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _new_folder(target.parent, target.name, ".tmp")
    try:
        with _of_path(final):
            yield temporary
            for path in sorted(temporary.rglob("*")):
                fsync(path)
            fsync(temporary)
            replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_files(source: Path, target: Path) -> None:
    """Copy every file in `source` into `target`. shutil.copytree would hide the system's error numbers."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, place)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise OSError(error.errno, error.strerror, str(place)) from None  # shutil names the source
                raise


def sweep_leftovers(parent: Path, name: str | None = None) -> None:
    """Clean up after a process killed inside `new_folder`: a half-filled or displaced folder in `parent`.

    name: clean up only this final folder, when other processes may be filling its siblings.
    """
    one = "*" if name is None else glob.escape(name)  # does not match a sibling called NAME.x
    for displaced in parent.glob(f".{one}.{ANY_TOKEN}.old"):
        for folder in displaced.iterdir():
            if not (parent / folder.name).exists():
                os.rename(folder, parent / folder.name)
        shutil.rmtree(displaced, ignore_errors=True)
    for half_filled in parent.glob(f".{one}.{ANY_TOKEN}.tmp"):
        shutil.rmtree(half_filled, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder. If killed half-way, the rest no longer has the folder's name and is swept next time."""
    doomed = _new_folder(folder.parent, folder.name, ".tmp")
    os.rename(folder, doomed / folder.name)
    shutil.rmtree(doomed, ignore_errors=True)


def replace_folder(source: Path, final: Path) -> None:
    """Rename `source` to `final`, moving an existing `final` aside first (rename cannot replace it)."""
    if not final.exists():
        os.rename(source, final)
    else:
        doomed = _new_folder(final.parent, final.name, ".old")
        os.rename(final, doomed / final.name)
        os.rename(source, final)
        shutil.rmtree(doomed, ignore_errors=True)
    fsync(final.parent)


def expanded(text: str | Path) -> Path:
    """Return the path with `~` and `~user` replaced, whether from an option, a recipe or the environment.

    Raises:
        UsageError: if there is no such user, or the home folder is unknown.
        EnvironmentUnfit: if the name is not UTF-8, as which results, cards and tensor files store it.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{text}: cannot find the home folder", "Write the full path, or set HOME.") from None
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        cure = "Rename it." if encoding == "utf-8" else f"This locale supports only {encoding}: set LC_ALL=C.UTF-8."
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise EnvironmentUnfit(f"{shown}: this name is not UTF-8", cure) from None
    return path
