"""What is wrong with AWS's own configuration: boto3 says it in a dozen ways, some of which quote a credential."""

from __future__ import annotations

import json
import re
from typing import Any

from ragcun_cli.secrets import redacted

CONFIGURATION = "AWS's configuration cannot be used"
FIX_FILES = "Fix ~/.aws/config or ~/.aws/credentials, or choose another profile (AWS_PROFILE)."
FIX_ENDPOINT = "Set AWS_ENDPOINT_URL to a URL such as https://s3.eu-central-1.amazonaws.com, or unset it."
FIX_CREDENTIALS = "Set the credentials again, without line breaks or other characters around them."
FIX_PROCESS = "The command that credential_process names must print JSON on standard output."


def configuration_problem(error: Exception) -> tuple[str, str] | None:
    """What to say of an error that comes from the configuration and not from AWS, and its cure; None for any other."""
    from botocore import exceptions

    said = " ".join(redacted(str(error)).split())
    if isinstance(error, json.JSONDecodeError):
        return "the credential_process of AWS's configuration does not print JSON", FIX_PROCESS
    if isinstance(error, exceptions.InfiniteLoopConfigError | exceptions.InvalidConfigError):
        return f"{CONFIGURATION}: {said}", FIX_FILES
    if isinstance(error, exceptions.UnknownCredentialError | exceptions.ConfigParseError | exceptions.ConfigNotFound):
        return f"{CONFIGURATION}: {said}", FIX_FILES
    if isinstance(error, exceptions.CredentialRetrievalError) and "custom-process" in said:
        return f"the credential_process of AWS's configuration failed: {said}", FIX_PROCESS
    of_value = isinstance(error, ValueError) and re.search(r"endpoint|\bport\b", said, re.IGNORECASE)
    of_endpoint = exceptions.EndpointProviderError | exceptions.InvalidEndpointConfigurationError
    if of_value or isinstance(error, of_endpoint):
        return f"AWS_ENDPOINT_URL is no URL: {said}", FIX_ENDPOINT
    if isinstance(error, UnicodeError) or (isinstance(error, ValueError) and "header" in said.lower()):
        return "the AWS credentials have a character that no request may carry, such as a line break", FIX_CREDENTIALS
    if isinstance(error, ValueError | KeyError | TypeError | FileNotFoundError | PermissionError):
        return f"{CONFIGURATION}: {type(error).__name__}: {said}", FIX_FILES
    return None


def require_clean(session: Any) -> None:
    """Find out now that credentials have a line break: sent, they would be quoted by the error of what refuses them.

    Raises:
        ValueError: without the credential.
    """
    credentials = session.get_credentials()  # which reads files, and runs credential_process
    # Only those that are written down somewhere: others ask a server as soon as they are looked at. None is none.
    if type(credentials).__name__ != "Credentials":
        return
    values = (credentials.access_key, credentials.secret_key, credentials.token)
    if any(not character.isprintable() for value in values for character in value or ""):
        raise ValueError("a header cannot hold these credentials")
