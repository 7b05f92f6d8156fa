"""Name the parts of a run on AWS. All names follow from the run's name, so that any machine can find them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ragcun_cli.errors import UsageError

RUN_TAG = "ragcun:run"
PREFIX = "ragcun-"
IAM_PATH = "/ragcun/"
RUNS = "runs"  # in the bucket: runs/<run>/…
STAGED = "datasets"  # datasets/…: downloads that all runs share
CACHES = "caches"  # and caches/<run>/…, which can be recomputed; S3 deletes it after two weeks
DEADLINE = "-deadline"
BOUNDARY = "ragcun-boundary"
LONGEST_RUN = 40  # the longest name derived from it, a role's, may have 64 characters
_RUN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


def require_run_name(run: str) -> str:
    """Return the name if AWS resources can be named after it.

    Raises:
        UsageError: if not.
    """
    if run.endswith(DEADLINE):
        raise UsageError(f"run name {run}: names ending in -deadline belong to a run's second role", "Choose another.")
    if not _RUN.fullmatch(run) or len(run) > LONGEST_RUN:
        raise UsageError(
            f"run name {run}: it has lower-case letters, digits and inner hyphens, at most {LONGEST_RUN} in all",
            "For example: --run isotropy-2.",
        )
    return run


def default_run_name(recipes: Sequence[str]) -> str:
    """Name a run after its recipes if it was given no name, so that the same command finds the same run."""
    joined = re.sub(r"[^a-z0-9]+", "-", "-".join(recipes).lower()).strip("-") or "run"
    if len(joined) <= LONGEST_RUN:
        return joined
    return f"{joined[: LONGEST_RUN - 7].rstrip('-')}-{hashlib.sha256(joined.encode()).hexdigest()[:6]}"


def bucket_name(account: str, region: str) -> str:
    """Name the bucket that ragcun creates: one per account and region, for all runs."""
    return f"{PREFIX}{account}-{region}"


def prefix_of(run: str) -> str:
    """Return the prefix of the run's objects in its bucket, with the trailing slash."""
    return f"{RUNS}/{run}/"


def cache_prefix_of(run: str) -> str:
    """Return the prefix of what the run can recompute, with the trailing slash."""
    return f"{CACHES}/{run}/"


def resource_name(run: str) -> str:
    """Name a run's role, instance profile, security group, launch template, placement group and budget."""
    return f"{PREFIX}{run}"


def deadline_role_name(run: str) -> str:
    """Name the role with which EventBridge Scheduler ends a run's machines."""
    return f"{PREFIX}{run}{DEADLINE}"


def role_arn(partition: str, account: str, role: str) -> str:
    """Return the ARN of one of a run's roles."""
    return f"arn:{partition}:iam::{account}:role{IAM_PATH}{role}"


def boundary_arn(partition: str, account: str) -> str:
    """Return the ARN of the policy that bounds what any role of a run may do; an administrator makes it once."""
    return f"arn:{partition}:iam::{account}:policy/{BOUNDARY}"


def schedule_name(run: str, attempt: int, node: int) -> str:
    """Name the schedule that ends one machine of an attempt."""
    return f"{PREFIX}{run}-{attempt}-{node}"


def log_group_name(run: str) -> str:
    """Name the run's log group in CloudWatch Logs."""
    return f"/ragcun/{run}"


def tags_of(run: str) -> list[dict[str, str]]:
    """Return the tags that every part of a run has."""
    return [{"Key": RUN_TAG, "Value": run}, {"Key": "Name", "Value": resource_name(run)}]


def client_token(run: str, attempt: int, template: str, tries: int) -> str:
    """Return a token that stays the same when a request is resent, so that AWS starts no second machine. It includes
    template, whose id is new in every launch, because AWS refuses one token for different requests. tries: number of
    refusals so far; the same token would only get the same answer again.
    """
    return hashlib.sha256(f"{run} {attempt} {template} {tries}".encode()).hexdigest()
