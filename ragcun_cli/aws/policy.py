"""The permissions that a ragcun user needs in AWS, and the boundary of what a run's machines may ever do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import FORBIDDEN, GLOBAL, Aws, AwsError

HERE = Path(__file__).resolve().parent
CALLER_FILE, BOUNDARY_FILE = HERE / "caller-policy.json", HERE / "boundary-policy.json"
ACCOUNT_MARK, PARTITION = "ACCOUNT", "arn:aws:"
BUCKETS = "arn:aws:s3:::ragcun-ACCOUNT-*"


def caller_policy(account: str | None, bucket: str | None = None, partition: str = "aws") -> str:
    """Return the user's policy as JSON for one account, or with the word ACCOUNT as a placeholder if none is given.

    bucket: one that ragcun did not create but may use.
    """
    return _filled(CALLER_FILE, account, bucket, partition)


def boundary_policy(account: str | None, bucket: str | None = None, partition: str = "aws") -> str:
    """Return the permissions boundary as JSON: the most that any role of a run may do, whatever its own policy says.

    An administrator makes it once. The user's policy allows no role without it, and no change of it: otherwise the
    user could make a role that may do everything.
    """
    return _filled(BOUNDARY_FILE, account, bucket, partition)


def _filled(path: Path, account: str | None, bucket: str | None, partition: str) -> str:
    policy = json.loads(path.read_text(encoding="utf-8"))
    for statement in policy["Statement"]:
        resource = statement["Resource"]
        if bucket is not None and isinstance(resource, str) and resource.startswith(BUCKETS):
            statement["Resource"] = [resource, resource.replace(BUCKETS, f"arn:aws:s3:::{bucket}")]
    text = json.dumps(policy, indent=2).replace(PARTITION, f"arn:{partition}:")
    return text if account is None else text.replace(ACCOUNT_MARK, account)


def check_boundary(aws: Aws, account: str, bucket: str | None) -> tuple[str, str]:
    """Return why a launch would fail for want of the boundary, and what could not be checked; each empty if all is
    well.

    Raises:
        AwsError: if AWS does not answer.
    """
    arn = names.boundary_arn(aws.partition, account)
    options = (f" --bucket {bucket}" if bucket else "") + (
        f" --partition {aws.partition}" if aws.partition != "aws" else ""
    )
    try:
        found = aws.ask("iam", "get_policy", {"PolicyArn": arn}, region=GLOBAL, absent=("NoSuchEntity",))
        if found is None:
            return (
                f"the account has no policy {names.BOUNDARY}, the boundary of what machines may do. An administrator "
                f"makes it once, from what `ragcun aws policy --boundary --account {account}{options}` prints: "
                "AWS_SETUP.md, section 2",
                "",
            )
        version = {"PolicyArn": arn, "VersionId": found["Policy"]["DefaultVersionId"]}
        document = aws.call("iam", "get_policy_version", version, region=GLOBAL)["PolicyVersion"]["Document"]
    except AwsError as error:
        if error.code in FORBIDDEN:
            return "", f"the permissions boundary could not be looked at: {error.message}"
        raise
    if _as_json(document) != json.loads(boundary_policy(account, bucket, aws.partition)):
        return "", (
            f"the account's {names.BOUNDARY} differs from what `ragcun aws policy --boundary --account {account}"
            f"{options}` prints; "
            "if a machine is denied something, or should be allowed less, update it"
        )
    return "", ""


def _as_json(document: Any) -> Any:
    return json.loads(document) if isinstance(document, str) else document
