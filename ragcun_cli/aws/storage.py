"""Set up the bucket of an account and region, and upload a run's objects before its machines start."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragcun_cli.aws.build import storage as build
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.code import CodeArchive
from ragcun_cli.aws.job import Job, files_below
from ragcun_cli.aws.plan import LaunchPlan
from ragcun_cli.aws.record import CONFLICT, FORMAT, RunRecord, as_json, now
from ragcun_cli.aws.removal import remove_bucket_if_empty, remove_objects
from ragcun_cli.aws.rollback import Rollback
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.files import sha256_of_file
from ragcun_cli.recipe.schema import Recipe

NOT_OURS = ("403", "AccessDenied", "Forbidden")


def ensure_bucket(aws: Aws, plan: LaunchPlan, rollback: Rollback) -> None:
    """Create ragcun's bucket if it does not exist, and make sure that it is private and encrypted.

    A bucket that the user created and named is left unchanged, and must be private.

    Raises:
        EnvironmentUnfit: if it belongs to another account, or is not private.
    """
    is_there = _is_ours(aws, plan)
    if plan.wishes.bucket is not None:
        if not is_there:
            raise UsageError(
                f"--bucket {plan.bucket}: there is no such bucket",
                "Create it, or omit --bucket: ragcun then creates its own.",
            )
        return _require_private(aws, plan)
    if not is_there:
        remove = f"aws s3 rb s3://{plan.bucket}"
        rollback.add(f"bucket {plan.bucket}", remove, lambda: _remove_bucket(aws, plan))
        try:
            aws.call("s3", "create_bucket", build.build_bucket(plan.bucket, plan.home), region=plan.home)
        except AwsError as error:
            if error.code == "BucketAlreadyExists":
                raise bucket_is_taken(plan.bucket) from None
            if error.code != "BucketAlreadyOwnedByYou":
                raise
    bucket, account = plan.bucket, plan.account
    for operation, request in (
        ("put_public_access_block", build.build_public_access_block(bucket, account)),
        ("put_bucket_encryption", build.build_encryption(bucket, account)),
        ("put_bucket_lifecycle_configuration", build.build_lifecycle(bucket, account)),
        ("put_bucket_tagging", build.build_bucket_tags(bucket, account)),
    ):
        aws.call("s3", operation, request, region=plan.home)
    return None


def _is_ours(aws: Aws, plan: LaunchPlan) -> bool:
    request = {"Bucket": plan.bucket, "ExpectedBucketOwner": plan.account}
    try:
        return aws.ask("s3", "head_bucket", request, region=plan.home, absent=("404", "NoSuchBucket")) is not None
    except AwsError as error:
        if error.code in NOT_OURS:
            raise bucket_is_taken(plan.bucket) from None
        raise


def bucket_is_taken(bucket: str) -> EnvironmentUnfit:
    """Build the error for a bucket that belongs to another account."""
    return EnvironmentUnfit(
        f"bucket {bucket}: it belongs to somebody else, or you may not use it", "Use another one: --bucket NAME"
    )


def _require_private(aws: Aws, plan: LaunchPlan) -> None:
    request = {"Bucket": plan.bucket, "ExpectedBucketOwner": plan.account}
    absent = ("NoSuchPublicAccessBlockConfiguration",)
    answer = aws.ask("s3", "get_public_access_block", request, region=plan.home, absent=absent)
    blocked = (answer or {}).get("PublicAccessBlockConfiguration", {})
    wanted = build.build_public_access_block(plan.bucket, plan.account)["PublicAccessBlockConfiguration"]
    if any(not blocked.get(key) for key in wanted):
        raise EnvironmentUnfit(
            f"bucket {plan.bucket}: public access to it is not blocked",
            "Block it (S3 console, Permissions, Block all public access), or omit --bucket.",
        )


def _remove_bucket(aws: Aws, plan: LaunchPlan) -> None:
    request = {"Bucket": plan.bucket, "ExpectedBucketOwner": plan.account}
    if aws.ask("s3", "head_bucket", request, region=plan.home, absent=("404", "NoSuchBucket")) is not None:
        remove_bucket_if_empty(aws, plan.bucket, plan.home)


def describe_launch(plan: LaunchPlan, archive: CodeArchive) -> dict[str, Any]:
    """Return the content of launch.json before the first attempt."""
    job = plan.job
    recipes = {f"recipes/{name}.yaml": _sha256(text.encode()) for name, text in job.rendered().items()}
    return {
        "format": FORMAT,
        "run": plan.run,
        "id": uuid.uuid4().hex,
        "account": plan.account,
        "created": now().isoformat(),
        "wishes": dataclasses.asdict(plan.wishes) | {"regions": list(plan.wishes.regions)},
        "code": archive.as_json(),
        "recipes": recipes,
        "work": {recipe.name: _digest_of_work(recipe) for recipe in job.recipes},
        "inputs": {key: sha256_of_file(path) for key, path in _files_of(job)},
        "base_models": list(job.base_models),
        "seeds": list(job.seeds),
        "datasets": job.datasets,
        "downloads": list(job.downloads),
        "precision": job.precision,
        "triples": job.triples,
        "attempts": [],
    }


def claim_run(record: RunRecord, launch: dict[str, Any], rollback: Rollback) -> None:
    """Write launch.json unless it already exists.

    Raises:
        UsageError: if it exists, because another launch of this name came first.
    """
    remove = f"aws s3 rm --recursive {record.address}"
    rollback.add(f"objects at {record.address}", remove, lambda: _forget(record, launch["id"]))
    request = build.build_launch_lock(record.bucket, record.account, record.run, as_json(launch))
    try:
        record.aws.call("s3", "put_object", request, region=record.region)
    except AwsError as error:
        if error.code in CONFLICT:
            if (record.launch() or {}).get("id") == launch["id"]:
                return  # it is ours: the first response was lost, and boto3 retried
            raise UsageError(
                f"--run {record.run}: another launch with this name has just started",
                f"Check it: ragcun aws status {record.run}; or choose another name.",
            ) from None
        raise


def _forget(record: RunRecord, launch_id: str) -> None:
    there = record.launch()
    if there is None or there["id"] != launch_id:
        return  # nothing was written, or another launch came first
    try:
        remove_objects(record)
    except OSError as error:
        raise AwsError(str(error)) from None


def upload_run(record: RunRecord, plan: LaunchPlan, archive: CodeArchive) -> None:
    """Upload the code, recipes and inputs.

    Raises:
        AwsError: if an upload fails.
    """
    record.write(archive.key, archive.content)
    for name, text in plan.job.rendered().items():
        record.write(f"recipes/{name}.yaml", text.encode())
    store = record.store()
    try:
        for key, path in _files_of(plan.job):
            store.put(key, path)
    except OSError as error:
        raise AwsError(str(error)) from None


def _files_of(job: Job) -> Iterator[tuple[str, Path]]:
    """Yield key and path of every user file that is uploaded with the run."""
    for each in job.inputs:
        for path in files_below(each.path):
            yield each.key if path == each.path else f"{each.key}/{path.relative_to(each.path).as_posix()}", path


def _digest_of_work(recipe: Recipe) -> str:
    """Return a recipe's digest without its backup address, which depends on the run's bucket."""
    return _sha256(json.dumps(recipe.model_dump(exclude={"backup"}), sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
