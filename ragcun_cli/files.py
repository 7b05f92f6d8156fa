"""Files that are either whole or not there: writing under a temporary name, then renaming."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HASH_BLOCK_BYTES = 1 << 20


def digest_of_file(path: Path, algorithm: str) -> str:
    """Hex digest of a file, read in blocks (hashlib.file_digest needs Python 3.11). algorithm: md5 or sha256."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hex sha256 of a file."""
    return digest_of_file(path, "sha256")


def given_name(path: Path) -> str:
    """The last part of a path as it was given: a link's own name and not its target's; also of `.`."""
    return Path(os.path.abspath(path)).name


def fsync(path: Path) -> None:
    """Make a file, or a folder's list of names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary sibling to write; it replaces `path` at once when the block ends well.

    A reader sees the old content or the new, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        error.filename = str(path)  # which the user knows
        raise
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        fsync(temporary)
        temporary.chmod(0o644)  # mkstemp makes files that other users cannot read
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:  # of a write, which does not say to which file
            error.filename = str(path)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` at once: a reader sees the old content or the new, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Replace a UTF-8 text file at once. What is no UTF-8 in a file name becomes an escape, which JSON reads back."""
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file at once, indented, keys in the order given."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Give a temporary sibling of `final` to fill; it takes the final name when the block ends well.

    An existing `final` is replaced only then. If the block raises, nothing is left behind.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent))
    os.chmod(temporary, 0o755)
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            fsync(path)
        fsync(temporary)
        replace_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep_leftovers(parent: Path, name: str = "*") -> None:
    """Finish what a process killed inside `new_folder` left in `parent`: a half-filled or a displaced folder.

    name: of the one final folder that is meant, where other processes may be filling its siblings.
    """
    for displaced in parent.glob(f".{name}.*.old"):
        for folder in displaced.iterdir():
            if not (parent / folder.name).exists():
                os.rename(folder, parent / folder.name)
        shutil.rmtree(displaced, ignore_errors=True)
    for half_filled in parent.glob(f".{name}.*.tmp"):
        shutil.rmtree(half_filled, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder as a whole: killed half-way, what is left no longer has its name, and is swept the next time."""
    doomed = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    os.rename(folder, doomed / folder.name)
    shutil.rmtree(doomed, ignore_errors=True)


def replace_folder(source: Path, final: Path) -> None:
    """Rename `source` to `final`, moving an existing `final` aside first (rename cannot replace it)."""
    if not final.exists():
        os.rename(source, final)
    else:
        doomed = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".old", dir=final.parent))
        os.rename(final, doomed / final.name)
        os.rename(source, final)
        shutil.rmtree(doomed, ignore_errors=True)
    fsync(final.parent)
