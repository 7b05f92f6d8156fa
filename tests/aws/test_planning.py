"""`ragcun aws plan`, and what is refused before anything is asked for."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, TokenRetrievalError

from ragcun_cli.aws.prices import disk_dollars
from tests.aws.account_contents import leftovers
from tests.aws.cloud import ACCOUNT, Cloud, refused
from tests.aws.command_answers import refuses, said
from tests.conftest import RunCommand

PLAN = ("aws", "plan", "--instance", "g5.xlarge", "--recipe", "isotropy", "--max-hours", "200")


def test_a_plan_makes_nothing(account: Cloud, ragcun: RunCommand) -> None:
    done = ragcun(*PLAN)
    assert done.exit_code == 0
    for expected in ("L-3819A6DF", "spot       us-east-1a", "at most      200 hours", "creates      bucket ragcun-"):
        assert expected in done.stdout
    assert leftovers(account) == set()
    assert all(operation.split(":")[1].startswith(("Get", "Describe", "List")) for operation in account.operations())


def test_a_plan_as_json_has_all_of_it(account: Cloud, ragcun: RunCommand) -> None:
    plan = json.loads(ragcun(*PLAN, "--json").stdout)
    assert plan["obstacles"] == []
    assert plan["regions"][0]["quota"] == {
        "code": "L-3819A6DF", "name": "All G and VT Spot Instance Requests", "needed": 4, "held": 192.0, "used": 0,
    }  # fmt: skip
    assert plan["maximum_cost"] == pytest.approx(200.25 * (21.957642 + disk_dollars(plan["disk_gib"]) + 0.005))


def test_dry_run_is_the_plan(account: Cloud, ragcun: RunCommand) -> None:
    planned = ragcun(*PLAN, "--json").stdout
    dry = ragcun("aws", "launch", *PLAN[2:], "--dry-run", "--json").stdout
    assert json.loads(dry) == json.loads(planned)
    assert leftovers(account) == set()


@pytest.mark.parametrize(
    ("instance", "nearest"),
    [("p3.2xlarge", "g5.xlarge"), ("p3.8xlarge", "g5.12xlarge"), ("p3.16xlarge", "p4d.24xlarge")],
)
def test_p3_is_retired_and_its_replacement_is_named(
    account: Cloud, ragcun: RunCommand, instance: str, nearest: str
) -> None:
    for command in (["plan"], ["plan", "--offline"], ["launch", "--yes"]):
        refuses(
            ragcun("aws", *command, "--instance", instance), 2, "AWS has retired EC2 P3", f"Closest to it: {nearest}"
        )


def test_an_unknown_type(account: Cloud, ragcun: RunCommand) -> None:
    refuses(
        ragcun("aws", "plan", "--instance", "g5.xlarg"),
        2,
        "AWS has no such type in us-east-1; did you mean 'g5.xlarge'?",
    )


def test_an_arm_machine(account: Cloud, ragcun: RunCommand) -> None:
    refuses(ragcun("aws", "plan", "--instance", "g5g.xlarge"), 4, "ARM processors are not supported")


def test_a_region_that_is_none(account: Cloud, ragcun: RunCommand) -> None:
    refuses(ragcun(*PLAN, "--region", "us-east-11"), 2, "AWS has no such region; did you mean 'us-east-1'?")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (NoCredentialsError(), ["there are no AWS credentials", "aws sso login"]),
        (TokenRetrievalError(provider="sso", error_msg="Token has expired"), ["cannot be used", "aws sso login"]),
        (refused("ExpiredToken", "x", 400), ["have expired", "aws sso login"]),
        (refused("RequestTimeTooSkewed", "x"), ["this machine's clock differs from AWS's", "set-ntp"]),
        (
            refused("SignatureDoesNotMatch", "x", 403, "Signature expired: 20260101T000000Z is now earlier than ..."),
            ["this machine's clock differs from AWS's"],
        ),
        (refused("InvalidClientTokenId", "x"), ["does not know these credentials"]),
        (refused("AccessDenied", "x"), ["not allowed", "ragcun aws policy"]),
        (refused("RequestLimitExceeded", "x", 503), ["limits the request rate"]),
        (
            EndpointConnectionError(endpoint_url="https://sts.x"),
            ["no answer from AWS", "Check the network and the region."],
        ),
    ],
)
def test_credentials_clock_and_network(
    account: Cloud, ragcun: RunCommand, fault: Exception, expected: list[str]
) -> None:
    account.before = lambda service, operation: fault
    refuses(ragcun(*PLAN), 4, *expected)
    assert json.loads(ragcun(*PLAN, "--json").stdout)["exit_code"] == 4


def test_a_profile_that_is_not_there(ragcun: RunCommand) -> None:
    refuses(ragcun(*PLAN, "--profile", "nobody"), 2, "--profile nobody", "list-profiles")


def test_no_quota(account: Cloud, ragcun: RunCommand) -> None:
    account.quota = 0
    done = ragcun(*PLAN)
    assert "BLOCKED BY" in done.stdout
    refuses(done, 4, "(L-3819A6DF) allows 0 vCPUs; 4 are needed", "servicequotas/home/services/ec2/quotas/L-3819A6DF")


@pytest.mark.parametrize("name", ["Isotropy", "a_b", "-a", "a" * 41, "a/b", ""])
def test_a_run_name_that_aws_would_not_take(account: Cloud, ragcun: RunCommand, name: str) -> None:
    if name:
        refuses(ragcun(*PLAN, "--run", name), 2, "lower-case letters, digits and inner hyphens")


def test_the_policy_is_printed_for_an_account(ragcun: RunCommand) -> None:
    policy = json.loads(ragcun("aws", "policy", "--account", ACCOUNT).stdout)
    assert f"arn:aws:s3:::ragcun-{ACCOUNT}-*" in [statement["Resource"] for statement in policy["Statement"]]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (("--max-hours", "inf"), "--max-hours"),
        (("--max-hours", "0.1"), "--max-hours"),
        (("--disk", "99999999"), "--disk"),
        (("--bucket", "My Bucket"), "not a valid S3 bucket name"),
        (("--email", "foo"), "not an email address"),
        (("--precision", "half"), "--precision half: unknown; known: bf16, float32, fp16"),
        (("--nodes", "2", "--seeds", "0,1"), "several seeds are several trainings"),
        (("--run", "a-deadline"), "ending in -deadline"),
    ],
)
def test_options_that_make_no_sense(account: Cloud, ragcun: RunCommand, option: tuple[str, ...], expected: str) -> None:
    done = ragcun(*PLAN, *option)
    assert done.exit_code == 2
    assert expected in said(done)


def test_the_policy_takes_a_bucket_of_yours(ragcun: RunCommand) -> None:
    policy = json.loads(ragcun("aws", "policy", "--account", ACCOUNT, "--bucket", "mine").stdout)
    resources = [statement["Resource"] for statement in policy["Statement"] if statement["Sid"] == "Objects"]
    assert resources == [[f"arn:aws:s3:::ragcun-{ACCOUNT}-*/*", "arn:aws:s3:::mine/*"]]
    refuses(ragcun("aws", "policy", "--account", "12"), 2, "12 digits")
