"""The permissions that a ragcun user needs in AWS: the smallest policy for all `ragcun aws` commands."""

from __future__ import annotations

import json
from pathlib import Path

POLICY_FILE = Path(__file__).resolve().parent / "caller-policy.json"
ACCOUNT_MARK = "ACCOUNT"
BUCKETS = "arn:aws:s3:::ragcun-ACCOUNT-*"


def caller_policy(account: str | None, bucket: str | None = None) -> str:
    """Return the policy as JSON for one account, or with the word ACCOUNT as a placeholder if none is given.

    bucket: one that ragcun did not create but may use.
    """
    policy = json.loads(POLICY_FILE.read_text(encoding="utf-8"))
    for statement in policy["Statement"]:
        resource = statement["Resource"]
        if bucket is not None and isinstance(resource, str) and resource.startswith(BUCKETS):
            statement["Resource"] = [resource, resource.replace(BUCKETS, f"arn:aws:s3:::{bucket}")]
    text = json.dumps(policy, indent=2)
    return text if account is None else text.replace(ACCOUNT_MARK, account)
