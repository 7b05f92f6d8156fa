"""Unpack a zip in BEIR's layout into the cache once, because compressed files allow no random access."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ragcun_cli import files
from ragcun_cli.console import note
from ragcun_cli.data.cache import only_writer
from ragcun_cli.data.digests import sha256_of
from ragcun_cli.data.lines import FETCH_IT, LFS_POINTER, POINTER
from ragcun_cli.data.qrels import ENDINGS, FOLDER
from ragcun_cli.errors import DataError, EnvironmentUnfit
from ragcun_cli.manifest import problem_with, seal
from ragcun_cli.quantities import shown_bytes
from ragcun_cli.safe_paths import UnsafeName, require_safe_name, safe_join

BLOCK_BYTES = 1 << 20
# Errors that zipfile and its decompressors raise for corrupt bytes (OSError comes from bz2), encryption
# (RuntimeError), unsupported methods (NotImplementedError) and negative sizes or offsets (ValueError).
# They are caught only around reads: a full disk raises where a block is written, outside.
DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, NotImplementedError, ValueError,
)  # fmt: skip
MADE_TO_FILL = "looks like a zip bomb, not a collection of texts"
MOST_EXPANDED = 200  # times; JSON texts shrink to a third, one line repeated to a hundredth
LISTED = ("corpus.jsonl", "queries.jsonl", "corpus.jsonl.gz", "queries.jsonl.gz")
SHOWN = 5  # items that an error lists
ENCRYPTED = 1  # a bit of a member's flags


def unpack(path: Path, cache: Path, md5: str | None = None) -> Path:
    """Unpack a zip and return its folder, with corpus.jsonl, queries.jsonl and qrels/ at most one level down.

    Args:
        path: the zip.
        cache: where to unpack it, under a name derived from its content.
        md5: the expected md5 of the zip.

    Raises:
        DataError: if the zip is damaged, has a different md5, or contains no collection.
        EnvironmentUnfit: if there is not enough disk space.
    """
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise DataError(f"{path}: {POINTER}", FETCH_IT)
    sha256, found_md5 = _digests(path)
    if md5 is not None and found_md5 != md5:
        raise DataError(
            f"{path}: md5 is {found_md5}, but BEIR's {path.name} has {md5}",
            "It is damaged or a different version: download it again. To evaluate it anyway, give its path.",
        )
    folder = cache / "unpacked" / sha256[:32]
    with only_writer(folder):
        if not folder.is_dir() or (problem := problem_with(folder)) is not None:
            if folder.is_dir():
                note(f"{folder}: {problem}; unpacking {path} again.")
            files.sweep_leftovers(folder.parent, folder.name)
            _unpack(path, folder)
    return folder


def unpacked_file(path: Path, cache: Path) -> Path:
    """Unpack a .gz into the cache and return the file, because compressed files allow no random access.

    Raises:
        DataError: if it is damaged.
    """
    folder = cache / "unpacked" / sha256_of(path, cache)[:32]
    target = folder / path.stem
    with only_writer(folder):
        if problem_with(folder) is not None:
            files.sweep_leftovers(folder.parent, folder.name)
            with files.new_folder(folder) as temporary:
                try:
                    with gzip.open(path) as source, (temporary / path.stem).open("wb") as sink:
                        most = MOST_EXPANDED * path.stat().st_size
                        while block := source.read(BLOCK_BYTES):
                            sink.write(block)
                            if sink.tell() > most:
                                raise DataError(f"{path}: {MADE_TO_FILL}", "Get it from another source.")
                except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                    raise DataError(f"{path}: damaged or incomplete ({error})", "Get it again.") from None
                seal(temporary)
    return target


def _digests(path: Path) -> tuple[str, str]:
    """Return hex sha256 and md5."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            sha256.update(block)
            md5.update(block)
    return sha256.hexdigest(), md5.hexdigest()


def _unpack(path: Path, folder: Path) -> None:
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise DataError(f"{path}: not a complete zip file ({error})", "Download it again.") from None
    with archive:
        members = list(_members(archive, path))
        places = [place for _, place in members]
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice is not None:
            raise DataError(f"{path}: contains {twice} twice", "Get it from another source.")
        if any(member.flag_bits & ENCRYPTED for member, _ in members):
            raise DataError(f"{path}: is encrypted", "Unpack it with its password and name the folder.")
        if not any(place.name in ("corpus.jsonl", "corpus.jsonl.gz") for _, place in members):
            raise DataError(
                f"{path}: not a collection in BEIR's layout: corpus.jsonl is missing",
                "docs/your-own.md explains BEIR's layout.",
            )
        needed = sum(member.file_size for member, _ in members)
        packed = sum(member.compress_size for member, _ in members)
        if needed > MOST_EXPANDED * packed or packed > path.stat().st_size:
            raise DataError(
                f"{path}: {shown_bytes(path.stat().st_size)} would become {shown_bytes(needed)}: {MADE_TO_FILL}",
                "Get it from another source.",
            )
        free = shutil.disk_usage(folder.parent).free
        if needed > free:
            raise EnvironmentUnfit(
                f"{path}: needs {shown_bytes(needed)} unpacked, but {folder.parent} has {shown_bytes(free)} free",
                "Free some space, or set RAGCUN_CACHE to a folder on a larger disk.",
            )
        with files.new_folder(folder) as temporary:
            for member, place in members:
                _extract(archive, member, safe_join(temporary, place.as_posix()), path)
            seal(temporary)


def _members(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Yield each file of a collection and its target path, relative to the folder that all files share."""
    wanted = []
    for member in archive.infolist():
        if member.is_dir():
            continue
        # Some Windows programs write backslashes, others begin each name with ./
        name = member.filename.replace("\\", "/").removeprefix("./")
        place = PurePosixPath(name)
        try:
            require_safe_name(name)
        except UnsafeName as error:
            raise DataError(f"{path}: its member {error}", "Get it from another source.") from None
        if ":" in place.parts[0]:
            raise DataError(f"{path}: its member {member.filename!r} would be written outside the folder")
        in_qrels = place.name.endswith(ENDINGS) and len(place.parts) > 1 and place.parts[-2] == FOLDER
        left_by_mac = "__MACOSX" in place.parts or place.name.startswith("._")
        if (place.name in LISTED or in_qrels) and not left_by_mac:
            wanted.append((member, place, place.parts[: -2 if in_qrels else -1]))
    corpora = sorted({top for _, place, top in wanted if place.name.startswith("corpus.jsonl")})
    if len({len(top) for top in corpora}) > 1:
        shown = ", ".join("/".join(top) or "its top" for top in corpora[:SHOWN])
        raise DataError(f"{path}: has collections at several levels: {shown}", "Unpack it and name one of them.")
    tops = {top for _, _, top in wanted}
    shared = 0
    while tops and all(len(top) > shared for top in tops) and len({top[: shared + 1] for top in tops}) == 1:
        shared += 1
    for member, place, top in wanted:
        if len(top) - shared <= 1:  # deeper files are not part of a dataset
            yield member, PurePosixPath(*place.parts[shared:])


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, path: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as sink:
        for block in _content(archive, member, path):
            sink.write(block)


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Iterator[bytes]:
    read = 0
    try:
        with archive.open(member) as source:
            while block := source.read(BLOCK_BYTES):
                read += len(block)
                if read > member.file_size:
                    raise zipfile.BadZipFile("it is longer than the zip states")
                yield block
    except DAMAGE as error:
        raise DataError(
            f"{path}/{member.filename}: cannot be read from the zip ({error})", "Download it again."
        ) from None
