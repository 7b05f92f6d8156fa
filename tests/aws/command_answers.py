"""What tests of the commands share: how a refusal looks, and answers of a fleet."""

from __future__ import annotations

import base64

from tests.aws.cloud import Cloud
from tests.conftest import Finished


def said(done: Finished) -> str:
    return " ".join(done.stderr.replace("│", " ").split())


def refuses(done: Finished, code: int, *expected: str) -> None:
    """One panel, the exit code, no traceback."""
    assert (done.exit_code, done.stderr.count("╭")) == (code, 1), done.stderr
    assert "Traceback" not in done.stderr
    for text in expected:
        assert text in said(done)


def no_capacity(code: str) -> dict[str, object]:
    return {"FleetId": "fleet-1", "Errors": [{"ErrorCode": code, "ErrorMessage": "no."}], "Instances": []}


def account_user_data(account: Cloud) -> str:
    data = account.requests("CreateLaunchTemplate")[-1]["LaunchTemplateData"]["UserData"]
    return base64.b64decode(data).decode()
