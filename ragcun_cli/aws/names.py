"""What the parts of a run are called on AWS. From the run's name all others follow, so that any machine finds them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ragcun_cli.errors import UsageError

RUN_TAG = "ragcun:run"
PREFIX = "ragcun-"
IAM_PATH = "/ragcun/"
RUNS = "runs"  # in the bucket: runs/<run>/…
CACHES = "caches"  # and caches/<run>/…, what can be computed again; S3 removes it after two weeks
LONGEST_RUN = 40  # the longest name made of it, a role's, may have 64
_RUN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


def require_run_name(run: str) -> str:
    """The name, if parts of AWS can be called by it.

    Raises:
        UsageError: if not.
    """
    if run.endswith("-deadline"):
        raise UsageError(f"--run {run}: names that end in -deadline are those of a run's second role", "Take another.")
    if not _RUN.fullmatch(run) or len(run) > LONGEST_RUN:
        raise UsageError(
            f"--run {run}: a run's name has small letters, digits and hyphens between them, at most {LONGEST_RUN}",
            "Such as --run isotropy-2.",
        )
    return run


def default_run_name(recipes: Sequence[str]) -> str:
    """Of a run that was given none: its recipes' names, so that the same command finds the same run."""
    joined = re.sub(r"[^a-z0-9]+", "-", "-".join(recipes).lower()).strip("-") or "run"
    if len(joined) <= LONGEST_RUN:
        return joined
    return f"{joined[: LONGEST_RUN - 7].rstrip('-')}-{hashlib.sha256(joined.encode()).hexdigest()[:6]}"


def bucket_name(account: str, region: str) -> str:
    """Of the bucket that ragcun makes: an account and region have one, for all their runs."""
    return f"{PREFIX}{account}-{region}"


def prefix_of(run: str) -> str:
    """Of the run's objects in its bucket, with the last slash."""
    return f"{RUNS}/{run}/"


def cache_prefix_of(run: str) -> str:
    """Of what the run could compute again, with the last slash."""
    return f"{CACHES}/{run}/"


def resource_name(run: str) -> str:
    """Of the role, instance profile, security group, launch template, placement group and budget of a run."""
    return f"{PREFIX}{run}"


def deadline_role_name(run: str) -> str:
    """Of the role with which EventBridge Scheduler ends a run's machines."""
    return f"{PREFIX}{run}-deadline"


def schedule_name(run: str, attempt: int, node: int) -> str:
    """Of the schedule that ends one machine of an attempt."""
    return f"{PREFIX}{run}-{attempt}-{node}"


def log_group_name(run: str) -> str:
    """Of the run's group in CloudWatch Logs."""
    return f"/ragcun/{run}"


def tags_of(run: str) -> list[dict[str, str]]:
    """What every part of a run bears."""
    return [{"Key": RUN_TAG, "Value": run}, {"Key": "Name", "Value": resource_name(run)}]


def client_token(run: str, attempt: int, template: str, tries: int) -> str:
    """The same however often one attempt's request is sent, so that AWS starts no second machine. A launch template has
    a new id in every launch: a token that came twice with different requests would be refused. tries: answers that were
    refusals; the same token again would only bring the same answer.
    """
    return hashlib.sha256(f"{run} {attempt} {template} {tries}".encode()).hexdigest()
