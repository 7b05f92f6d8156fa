"""The S3 layer: one configuration of boto3's client for all of ragcun, a bucket's objects by key, and its errors."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.secrets import redacted
from ragcun_cli.storage.configuration import configuration_problem, require_clean

S3_SCHEME = "s3://"
PROBE = "probe"  # written and removed to check that this is allowed
ATTEMPTS = 5  # by boto3, with growing pauses, before it reports an error
SECONDS_TO_CONNECT, SECONDS_TO_READ = 10, 60


class AlreadyThereError(OSError):
    """An object with this key already exists."""


@dataclass(frozen=True)
class S3Store:
    """A store that keeps objects in an S3 bucket. S3 checks each against its SHA-256 as it arrives."""

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
            raise EnvironmentUnfit(f"backup: {self._name}: {_said(error)}", "Check the bucket's name.") from None
        except ClientError as error:
            if _status(error) < SERVER_ERROR:
                raise EnvironmentUnfit(
                    f"backup: {self._name}: {_said(error)}", "Check that the bucket exists and that you may use it."
                ) from None
        except Exception as error:
            said, cure = configuration_problem(error) or (_said(error), "Is the network up?")
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
            if self.has(key):
                raise
            return None

    def has(self, key: str) -> bool:
        """Whether the prefix lists an object. S3 refuses to read one that is not there to who may only list it."""
        return key in self.keys(key)

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
    """Turn boto3's many errors into OSErrors, which code that copies files expects."""
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
    except ValueError as error:  # from http.client, which quotes the header that it refuses
        said, _ = configuration_problem(error) or (_said(error), "")
        raise OSError(f"{name}: {said}") from None


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _said(error: Exception) -> str:
    return " ".join(redacted(str(error)).split())


def client_config() -> Any:
    """Return botocore's Config for every client of ragcun, S3's and the other services'."""
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    return Config(retries=retries, connect_timeout=SECONDS_TO_CONNECT, read_timeout=SECONDS_TO_READ)


def s3_client() -> Any:
    """Return a client of S3 with the environment's credentials.

    Raises:
        EnvironmentUnfit: if boto3 is not installed, or AWS's configuration cannot be used.
    """
    try:
        import boto3
    except ImportError:
        raise EnvironmentUnfit("backup: s3:// needs boto3", "pip install 'ragcun[aws]'") from None
    try:
        session = boto3.Session()  # a new one: boto3's default session keeps an earlier environment
        require_clean(session)
        return session.client("s3", config=client_config())
    except Exception as error:  # there are a dozen kinds, most not botocore's own
        said, cure = configuration_problem(error) or (_said(error), "See AWS_SETUP.md.")
        raise EnvironmentUnfit(f"backup: s3://: {said}", cure) from None
