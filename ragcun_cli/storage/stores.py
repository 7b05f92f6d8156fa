"""Define backup stores: an S3 bucket, or a folder such as a mounted disk. Both keep objects by key."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ragcun_cli import files
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.files import expanded
from ragcun_cli.safe_paths import safe_join
from ragcun_cli.storage.s3 import S3_SCHEME, AlreadyThereError, S3Store, s3_client


class ObjectStore(Protocol):
    """A store of objects by key, with `/` between the parts of a key. All methods may raise OSError, and a folder's
    UnsafeName for a key that leads outside it."""

    def check(self) -> None:
        """Raise EnvironmentUnfit if nothing can be stored here, even with a working network."""

    def put(self, key: str, path: Path) -> None:
        """Copy a file here, replacing any older object."""

    def put_new(self, key: str, content: bytes) -> None:
        """Write a new object, or raise AlreadyThereError if the key exists."""

    def read(self, key: str) -> bytes | None:
        """Return a small object's content, or None if it does not exist."""

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object to a file."""

    def keys(self, below: str) -> list[str]:
        """Return all keys that begin with `below`."""

    def delete(self, keys: list[str]) -> None:
        """Remove objects, ignoring those that do not exist."""


def open_store(address: str, name: str) -> ObjectStore:
    """Open the store that a recipe's `backup` names, at the place of one run.

    Raises:
        UsageError: if the address is neither s3://BUCKET/PREFIX nor a folder.
        EnvironmentUnfit: if boto3 is not installed.
    """
    if address.startswith(S3_SCHEME):
        bucket, _, prefix = address.removeprefix(S3_SCHEME).partition("/")
        if not bucket:
            raise UsageError(f"backup: {address}: the bucket's name is missing", "Write it as s3://BUCKET/PREFIX.")
        return S3Store(s3_client(), bucket, "/".join(part for part in (prefix.strip("/"), name) if part) + "/")
    if "://" in address:
        raise UsageError(f"backup: {address}: is neither s3://BUCKET/PREFIX nor a folder", "Use S3 or a folder.")
    return FolderStore(expanded(address) / name)


@dataclass(frozen=True)
class FolderStore:
    """A store that keeps objects as files in a folder."""

    root: Path

    def check(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentUnfit(f"backup: {self.root}: {error.strerror}", "Name another folder.") from None
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise EnvironmentUnfit(f"backup: {self.root}: no permission to write to it", "Name another folder.")

    def put(self, key: str, path: Path) -> None:
        with files.replacing(safe_join(self.root, key)) as temporary:
            shutil.copyfile(path, temporary)

    def put_new(self, key: str, content: bytes) -> None:
        path = safe_join(self.root, key)
        if path.exists():
            raise AlreadyThereError(str(path))
        files.write_bytes(path, content)

    def read(self, key: str) -> bytes | None:
        try:
            return safe_join(self.root, key).read_bytes()
        except FileNotFoundError:
            return None

    def fetch(self, key: str, path: Path) -> None:
        shutil.copyfile(safe_join(self.root, key), path)

    def keys(self, below: str) -> list[str]:
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return sorted(key for key in found if key.startswith(below) and not Path(key).name.startswith("."))

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            path = safe_join(self.root, key)
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty yet
                path.parent.rmdir()
