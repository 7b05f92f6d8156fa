"""Explain errors in the user's AWS configuration, which boto3 reports in a dozen ways, some quoting a credential."""

from __future__ import annotations

import json
import re
from typing import Any

from ragcun_cli.secrets import redacted

CONFIGURATION = "your AWS configuration cannot be used"
FIX_FILES = "Fix ~/.aws/config or ~/.aws/credentials, or choose another profile (AWS_PROFILE)."
FIX_ENDPOINT = "Set AWS_ENDPOINT_URL to a URL such as https://s3.eu-central-1.amazonaws.com, or unset it."
FIX_CREDENTIALS = "Set the credentials again, without line breaks or other characters around them."
FIX_PROCESS = "The credential_process command must print JSON to standard output."


def configuration_problem(error: Exception) -> tuple[str, str] | None:
    """Return the message and cure for an error caused by the configuration, not by AWS; None for any other error."""
    from botocore import exceptions

    said = " ".join(redacted(str(error)).split())
    if isinstance(error, json.JSONDecodeError):
        return "the credential_process of your AWS configuration does not print JSON", FIX_PROCESS
    if isinstance(error, exceptions.InfiniteLoopConfigError | exceptions.InvalidConfigError):
        return f"{CONFIGURATION}: {said}", FIX_FILES
    if isinstance(error, exceptions.UnknownCredentialError | exceptions.ConfigParseError | exceptions.ConfigNotFound):
        return f"{CONFIGURATION}: {said}", FIX_FILES
    if isinstance(error, exceptions.CredentialRetrievalError) and "custom-process" in said:
        return f"the credential_process of your AWS configuration failed: {said}", FIX_PROCESS
    of_value = isinstance(error, ValueError) and re.search(r"endpoint|\bport\b", said, re.IGNORECASE)
    of_endpoint = exceptions.EndpointProviderError | exceptions.InvalidEndpointConfigurationError
    if of_value or isinstance(error, of_endpoint):
        return f"AWS_ENDPOINT_URL is not a valid URL: {said}", FIX_ENDPOINT
    if isinstance(error, UnicodeError) or (isinstance(error, ValueError) and "header" in said.lower()):
        return "the AWS credentials contain a character that is not allowed, such as a line break", FIX_CREDENTIALS
    if isinstance(error, ValueError | KeyError | TypeError | FileNotFoundError | PermissionError):
        return f"{CONFIGURATION}: {type(error).__name__}: {said}", FIX_FILES
    return None


def require_clean(session: Any) -> None:
    """Refuse credentials that contain a line break before they are sent, since the resulting error would quote them.

    Raises:
        ValueError: if they do; the message does not quote them.
    """
    credentials = session.get_credentials()  # this reads files and runs credential_process
    # Check stored credentials only: reading any other kind contacts a server. None means that there are none.
    if type(credentials).__name__ != "Credentials":
        return
    values = (credentials.access_key, credentials.secret_key, credentials.token)
    if any(not character.isprintable() for value in values for character in value or ""):
        raise ValueError("a header cannot hold these credentials")
