"""What is wrong with AWS's configuration, and credentials that are looked at before they are sent."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.credentials import Credentials, RefreshableCredentials

from ragcun_cli.storage.configuration import (
    FIX_CREDENTIALS,
    FIX_ENDPOINT,
    FIX_FILES,
    FIX_PROCESS,
    configuration_problem,
    require_clean,
)


def session(credentials: Any) -> Any:
    return SimpleNamespace(get_credentials=lambda: credentials)


@pytest.mark.parametrize("place", range(3))
def test_a_character_that_no_header_may_hold_is_refused_wherever_it_stands(place: int) -> None:
    parts = ["key", "secret", "token"]
    require_clean(session(Credentials(*parts)))
    require_clean(session(Credentials("key", "secret")))
    parts[place] += "\n"
    with pytest.raises(ValueError, match="a header cannot hold these credentials"):
        require_clean(session(Credentials(*parts)))


def test_what_a_server_would_be_asked_for_is_left_alone() -> None:
    def refused() -> None:
        pytest.fail("a server was asked")

    require_clean(session(None))
    require_clean(session(RefreshableCredentials(None, None, None, None, refused, "test")))


@pytest.mark.parametrize(
    ("error", "said", "cure"),
    [
        (ValueError("Invalid endpoint: nowhere"), "AWS_ENDPOINT_URL is not a valid URL", FIX_ENDPOINT),
        (KeyError("endpoint"), "your AWS configuration cannot be used: KeyError", FIX_FILES),
        (ValueError("Invalid header value"), "a character that is not allowed", FIX_CREDENTIALS),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), "a character that is not allowed", FIX_CREDENTIALS),
        (ValueError("retries"), "your AWS configuration cannot be used: ValueError: retries", FIX_FILES),
        (KeyError("header"), "your AWS configuration cannot be used: KeyError", FIX_FILES),
        (json.JSONDecodeError("no", "", 0), "does not print JSON", FIX_PROCESS),
        (RuntimeError("header of an endpoint"), None, None),
    ],
)
def test_each_error_is_told_by_what_caused_it(error: Exception, said: str | None, cure: str | None) -> None:
    problem = configuration_problem(error)
    if said is None:
        assert problem is None
        return
    assert problem is not None
    assert said in problem[0]
    assert problem[1] == cure
