"""Where a backup lies: a bucket of S3, or a folder such as a mounted disk. Both keep objects by key."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ragcun_cli import files
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.paths import expanded
from ragcun_cli.secrets import redacted
from ragcun_cli.storage.configuration import configuration_problem, require_clean

S3_SCHEME = "s3://"
PROBE = "probe"  # written and removed, to see whether that is allowed
ATTEMPTS = 5  # boto3's own, with growing pauses, before an error is ours
SECONDS_TO_CONNECT, SECONDS_TO_READ = 10, 60


class AlreadyThereError(OSError):
    """An object of this key exists."""


class ObjectStore(Protocol):
    """Objects by key, `/` between its parts. All may raise OSError."""

    def check(self) -> None:
        """Raise EnvironmentUnfit if nothing can be kept here, whatever the network does."""

    def put(self, key: str, path: Path) -> None:
        """Copy a file here; an older object is replaced."""

    def put_new(self, key: str, content: bytes) -> None:
        """Write an object that must not exist yet, else AlreadyThereError."""

    def read(self, key: str) -> bytes | None:
        """A small object, None where it is not there."""

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object to a file."""

    def keys(self, below: str) -> list[str]:
        """All keys that begin with `below`."""

    def delete(self, keys: list[str]) -> None:
        """Remove objects; those that are not there are passed over."""


def open_store(address: str, name: str) -> ObjectStore:
    """The place that a recipe's `backup` names, and in it that of one run.

    Raises:
        UsageError: if it is none.
        EnvironmentUnfit: if boto3 is not installed.
    """
    if address.startswith(S3_SCHEME):
        bucket, _, prefix = address.removeprefix(S3_SCHEME).partition("/")
        if not bucket:
            raise UsageError(f"backup: {address}: names no bucket", "Write it as s3://BUCKET/PREFIX.")
        return S3Store(_s3_client(), bucket, "/".join(part for part in (prefix.strip("/"), name) if part) + "/")
    if "://" in address:
        raise UsageError(f"backup: {address}: is neither s3://BUCKET/PREFIX nor a folder", "Only S3 and folders.")
    return FolderStore(expanded(address) / name)


@dataclass(frozen=True)
class FolderStore:
    """Objects as files below a folder."""

    root: Path

    def check(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentUnfit(f"backup: {self.root}: {error.strerror}", "Name another folder.") from None
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise EnvironmentUnfit(f"backup: {self.root}: no permission to write there", "Name another folder.")

    def put(self, key: str, path: Path) -> None:
        with files.replacing(self.root / key) as temporary:
            shutil.copyfile(path, temporary)

    def put_new(self, key: str, content: bytes) -> None:
        path = self.root / key
        if path.exists():
            raise AlreadyThereError(str(path))
        files.write_bytes(path, content)

    def read(self, key: str) -> bytes | None:
        try:
            return (self.root / key).read_bytes()
        except FileNotFoundError:
            return None

    def fetch(self, key: str, path: Path) -> None:
        shutil.copyfile(self.root / key, path)

    def keys(self, below: str) -> list[str]:
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return sorted(key for key in found if key.startswith(below) and not Path(key).name.startswith("."))

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            (self.root / key).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty yet
                (self.root / key).parent.rmdir()


@dataclass(frozen=True)
class S3Store:
    """Objects of a bucket. S3 compares each with its SHA-256 as it arrives."""

    client: Any
    bucket: str
    prefix: str

    def check(self) -> None:
        from botocore.exceptions import ClientError, NoCredentialsError, ParamValidationError

        try:
            self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
            self.client.put_object(Bucket=self.bucket, Key=self.prefix + PROBE, Body=b"", ChecksumAlgorithm="SHA256")
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + PROBE)
        except NoCredentialsError:
            raise EnvironmentUnfit(
                f"backup: {self._name}: no AWS credentials", "Log in (aws sso login), or set AWS_PROFILE."
            ) from None
        except ParamValidationError as error:
            raise EnvironmentUnfit(f"backup: {self._name}: {_said(error)}", "Is the bucket's name right?") from None
        except ClientError as error:
            if _status(error) < SERVER_ERROR:
                raise EnvironmentUnfit(
                    f"backup: {self._name}: {_said(error)}", "Does the bucket exist, and may you use it?"
                ) from None
        except Exception as error:
            said, cure = configuration_problem(error) or (_said(error), "Is the network there?")
            raise EnvironmentUnfit(f"backup: {self._name}: {said}", cure) from None

    def put(self, key: str, path: Path) -> None:
        with _as_os_errors(self._name):
            self.client.upload_file(
                str(path), self.bucket, self.prefix + key, ExtraArgs={"ChecksumAlgorithm": "SHA256"}
            )

    def put_new(self, key: str, content: bytes) -> None:
        with _as_os_errors(self._name):
            self.client.put_object(
                Bucket=self.bucket, Key=self.prefix + key, Body=content, ChecksumAlgorithm="SHA256", IfNoneMatch="*"
            )

    def read(self, key: str) -> bytes | None:
        try:
            with _as_os_errors(self._name):
                body: bytes = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()
                return body
        except FileNotFoundError:
            return None
        except PermissionError:
            # Who may list a prefix only is not told by S3 that an object below it is not there.
            if key in self.keys(key):
                raise
            return None

    def fetch(self, key: str, path: Path) -> None:
        with _as_os_errors(self._name):
            self.client.download_file(self.bucket, self.prefix + key, str(path))

    def keys(self, below: str) -> list[str]:
        with _as_os_errors(self._name):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + below
            )
            return [each["Key"].removeprefix(self.prefix) for page in pages for each in page.get("Contents", [])]

    def delete(self, keys: list[str]) -> None:
        with _as_os_errors(self._name):
            for key in keys:
                self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    @property
    def _name(self) -> str:
        return f"{S3_SCHEME}{self.bucket}/{self.prefix}"


FORBIDDEN, NOT_FOUND, PRECONDITION_FAILED, SERVER_ERROR = 403, 404, 412, 500


@contextlib.contextmanager
def _as_os_errors(name: str) -> Any:
    """boto3's many errors as the system's, which whoever copies files expects."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        if _status(error) == NOT_FOUND and error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            raise FileNotFoundError(f"{name}: {_said(error)}") from error
        if _status(error) == FORBIDDEN:
            raise PermissionError(f"{name}: {_said(error)}") from error
        if _status(error) == PRECONDITION_FAILED:
            raise AlreadyThereError(f"{name}: {_said(error)}") from error
        raise OSError(f"{name}: {_said(error)}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise OSError(f"{name}: {_said(error)}") from None
    except ValueError as error:  # of http.client, which quotes the header that it refuses
        said, _ = configuration_problem(error) or (_said(error), "")
        raise OSError(f"{name}: {said}") from None


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _said(error: Exception) -> str:
    return " ".join(redacted(str(error)).split())


def _s3_client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise EnvironmentUnfit("backup: s3:// needs boto3", "pip install 'ragcun[aws]'") from None
    retries = {"mode": "standard", "max_attempts": ATTEMPTS}
    try:
        session = boto3.Session()  # of its own: boto3's default one keeps what the environment was
        require_clean(session)
        return session.client(
            "s3", config=Config(retries=retries, connect_timeout=SECONDS_TO_CONNECT, read_timeout=SECONDS_TO_READ)
        )
    except Exception as error:  # of a dozen kinds, most of them not botocore's own
        said, cure = configuration_problem(error) or (_said(error), "See AWS_SETUP.md.")
        raise EnvironmentUnfit(f"backup: s3://: {said}", cure) from None
