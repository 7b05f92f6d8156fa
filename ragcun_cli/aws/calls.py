"""The only place that sends requests to AWS; it turns responses into answers or ragcun's own errors."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ragcun_cli.aws.transient import is_known_to_pass, is_transient, pauses
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.recipe.problems import did_you_mean
from ragcun_cli.secrets import redacted
from ragcun_cli.storage.configuration import configuration_problem, require_clean
from ragcun_cli.storage.s3 import client_config

GLOBAL = "global"  # in place of a region, for services that have none: IAM, budgets
# Where those answer, by partition (AWS's word for its separate clouds), and where the price list does.
GLOBAL_REGIONS = {"aws": "us-east-1", "aws-us-gov": "us-gov-west-1", "aws-cn": "cn-north-1"}
USUAL_REGION = "us-east-1"

# What AWS's error codes mean to the user. The codes differ between services.
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
SKEWED = {"RequestTimeTooSkewed", "RequestInTheFuture"}
UNKNOWN_KEY = {"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "AuthFailure"}
FORBIDDEN = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Forbidden", "403"}
BUSY = {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException", "SlowDown"}
NOT_SUBSCRIBED = {"OptInRequired", "PendingVerification", "SubscriptionRequiredException"}

UNSETTLED = {
    "", "InternalError", "InternalFailure", "InternalServerException", "ServiceUnavailable", "Unavailable",
    "RequestTimeout", "RequestTimeoutException",
}  # fmt: skip

LOG_IN = "Log in again: aws sso login --profile PROFILE. AWS_SETUP.md explains how to set up credentials."
SET_THE_CLOCK = "Set this machine's clock (on Linux: sudo timedatectl set-ntp true) and try again."


class AwsError(EnvironmentUnfit):
    """AWS refused a request, or did not answer. `code` is AWS's error code, empty if there is none."""

    title = "aws"

    def __init__(self, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint)
        self.code = code

    @property
    def is_unsettled(self) -> bool:
        """Whether AWS may have done what was asked anyway, because no answer came or one from a failing server."""
        return self.code in UNSETTLED

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later: no answer, a failing or busy server, expired credentials, or
        something new that AWS does not know everywhere yet."""
        return self.code in UNSETTLED | BUSY | EXPIRED or is_known_to_pass(self.code)


def open_session(profile: str | None) -> Any:
    """Open boto3's session from the profile or the environment.

    Raises:
        EnvironmentUnfit: if boto3 is not installed.
        UsageError: if there is no such profile.
    """
    try:
        import boto3
        from botocore.exceptions import ProfileNotFound
    except ImportError:
        raise EnvironmentUnfit("ragcun aws needs boto3", "pip install 'ragcun[aws]'") from None
    try:
        session = boto3.Session(profile_name=profile)
        require_clean(session)  # fails here, not in the middle of a call
        return session
    except ProfileNotFound as error:
        where = f"--profile {profile}" if profile else f"AWS_PROFILE={os.environ.get('AWS_PROFILE', '')}"
        raise UsageError(f"{where}: {error}", "`aws configure list-profiles` lists the profiles.") from None
    except Exception as error:  # of a dozen types, most of them not botocore's own
        raise _as_ours(error, "credentials", "") from None


class Aws:
    """An account, used through one session. `call` sends a request; nothing else in ragcun talks to AWS's services."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self._region = USUAL_REGION  # where the session names none
        self._clients: dict[tuple[str, str], Any] = {}

    def client(self, service: str, region: str) -> Any:
        """Return boto3's client, created once."""
        key = (service, GLOBAL_REGIONS[self.partition] if region == GLOBAL else region)
        if key not in self._clients:
            try:
                self._clients[key] = self.session.client(*key, config=client_config())
            except Exception as error:  # a wrong endpoint raises a ValueError
                raise _as_ours(error, f"{service}: client", region) from None
        return self._clients[key]

    def call(
        self, service: str, operation: str, request: Mapping[str, Any] | None = None, *, region: str
    ) -> dict[str, Any]:
        """Send one request, such as ("ec2", "create_fleet", build_fleet(...)).

        It is repeated for two minutes while AWS answers that something made just before is not there yet.

        Raises:
            AwsError: if AWS refuses it or does not answer.
        """
        for pause in pauses():
            try:
                return self.send(service, operation, request, region=region)
            except AwsError as error:
                if not is_transient(service, operation, error.code, error.message):
                    raise
            time.sleep(pause)
        return self.send(service, operation, request, region=region)

    def send(
        self, service: str, operation: str, request: Mapping[str, Any] | None = None, *, region: str
    ) -> dict[str, Any]:
        """Send one request once.

        Raises:
            AwsError: if AWS refuses it or does not answer.
        """
        method = getattr(self.client(service, region), operation)
        try:
            answer: dict[str, Any] = method(**(request or {}))
            return answer
        except Exception as error:  # http.client raises a ValueError for credentials with a line break
            raise _as_ours(error, f"{service}:{_camel(operation)}", region) from None

    def ask(
        self,
        service: str,
        operation: str,
        request: Mapping[str, Any] | None = None,
        *,
        region: str,
        absent: Collection[str],
    ) -> dict[str, Any] | None:
        """Do `call`, but return None if AWS answers with one of the codes in `absent`."""
        try:
            return self.call(service, operation, request, region=region)
        except AwsError as error:
            if error.code in absent:
                return None
            raise

    def pages(
        self, service: str, operation: str, request: Mapping[str, Any] | None = None, *, region: str, key: str
    ) -> Iterator[Any]:
        """Yield the entries under `key` from all pages of an answer.

        Raises:
            AwsError: as `call`.
        """
        pages = iter(self.client(service, region).get_paginator(operation).paginate(**(request or {})))
        while True:
            try:
                page = next(pages, None)
            except Exception as error:
                raise _as_ours(error, f"{service}:{_camel(operation)}", region) from None
            if page is None:
                return
            yield from page.get(key, [])

    def account(self) -> tuple[str, str]:
        """Return the account's number and the caller's ARN.

        Raises:
            AwsError: if the credentials do not work.
        """
        identity = self.call("sts", "get_caller_identity", region=self.session.region_name or self._region)
        return identity["Account"], identity["Arn"]

    @property
    def partition(self) -> str:
        """AWS's separate cloud that the regions in use are in: aws, aws-us-gov or aws-cn."""
        return partition_of(self.session.region_name or self._region)

    def require_region(self, region: str) -> None:
        """Refuse a region that does not exist.

        Raises:
            UsageError: if boto3 knows no region of this name.
        """
        known = [
            each
            for partition in self.session.get_available_partitions()
            for each in self.session.get_available_regions("ec2", partition_name=partition)
        ]
        if region not in known:
            raise UsageError(f"--region {region}: AWS has no such region; {did_you_mean(region, known)}")
        self._region = region


def partition_of(region: str) -> str:
    """Return the partition that a region belongs to, which its ARNs begin with."""
    if region.startswith("us-gov-"):
        return "aws-us-gov"
    return "aws-cn" if region.startswith("cn-") else "aws"


def _as_ours(error: Exception, operation: str, region: str) -> AwsError:
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return _refused(error, operation, region)
    said = " ".join(redacted(str(error)).split())
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return AwsError("there are no AWS credentials", "Log in (aws sso login), set AWS_PROFILE, or see AWS_SETUP.md.")
    problem = configuration_problem(error)
    if problem is not None:
        return AwsError(*problem, "Configuration")
    if isinstance(error, exceptions.CredentialRetrievalError | exceptions.SSOError | exceptions.TokenRetrievalError):
        return AwsError(f"the AWS credentials cannot be used: {said}", LOG_IN)
    if isinstance(error, exceptions.ParamValidationError):
        return AwsError(f"{operation} ({region}): {said}", "This is a bug in ragcun.", "ParamValidationError")
    where = f"{operation} ({region})" if region else operation
    return AwsError(f"{where}: no answer from AWS: {said}", "Check the network and the region.")


def _refused(error: Any, operation: str, region: str) -> AwsError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    said = " ".join(redacted(str(error.response.get("Error", {}).get("Message", ""))).split())
    if code in SKEWED or (code == "SignatureDoesNotMatch" and ("expired" in said.lower() or "not yet" in said)):
        return AwsError(f"{operation}: this machine's clock differs from AWS's: {said}", SET_THE_CLOCK, code)
    if code in EXPIRED:
        return AwsError(f"{operation}: the AWS credentials have expired: {said}", LOG_IN, code)
    if code in UNKNOWN_KEY or code == "SignatureDoesNotMatch":
        return AwsError(
            f"{operation} ({region}): AWS does not know these credentials: {said}",
            f"{LOG_IN} A region that is not enabled yet gives the same answer.",
            code,
        )
    if code in FORBIDDEN:
        return AwsError(
            f"{operation} ({region}): not allowed: {said}",
            "`ragcun aws policy` prints the permissions that ragcun needs.",
            code,
        )
    if code in NOT_SUBSCRIBED:
        return AwsError(f"{operation} ({region}): this account may not use it yet: {said}", "See AWS_SETUP.md.", code)
    if code in BUSY:
        return AwsError(f"{operation} ({region}): AWS limits the request rate: {said}", "Try again in a minute.", code)
    return AwsError(f"{operation} ({region}): {code}: {said}", "", code)


def _camel(operation: str) -> str:
    return "".join(part.capitalize() for part in operation.split("_"))
