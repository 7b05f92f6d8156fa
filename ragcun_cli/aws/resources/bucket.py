"""The bucket that all runs of an account and region share, and a run's objects in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.code import CodeArchive
from ragcun_cli.aws.job import Job, files_below
from ragcun_cli.aws.launch_record import LAUNCH_FILE, LaunchRecord
from ragcun_cli.aws.plan import LaunchPlan
from ragcun_cli.aws.record import CONFLICT, RunRecord, as_json, build_object
from ragcun_cli.errors import EnvironmentUnfit, UsageError

NOT_OURS = ("403", "AccessDenied", "Forbidden")
NO_BUCKET = ("404", "NoSuchBucket")
TAG = "ragcun"
DAYS_OF_AN_UPLOAD = 2
DAYS_OF_CACHE = 14
REGION_WITHOUT_NAME = "us-east-1"  # S3 wants this one left out


def build_bucket(bucket: str, region: str) -> dict[str, Any]:
    """Build the s3:CreateBucket request. New buckets have access lists off by default."""
    named = {} if region == REGION_WITHOUT_NAME else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    return {"Bucket": bucket, **named}


def build_public_access_block(bucket: str, account: str) -> dict[str, Any]:
    """Build the s3:PutPublicAccessBlock request: nothing in the bucket can be made public."""
    every = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    return _of(bucket, account) | {"PublicAccessBlockConfiguration": dict.fromkeys(every, True)}


def build_encryption(bucket: str, account: str) -> dict[str, Any]:
    """Build the s3:PutBucketEncryption request, with S3's own keys."""
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}
    return _of(bucket, account) | {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}


def build_lifecycle(bucket: str, account: str) -> dict[str, Any]:
    """Build the s3:PutBucketLifecycleConfiguration request. Results and models stay until somebody removes them."""
    rules = [
        {
            "ID": "unfinished-uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": DAYS_OF_AN_UPLOAD},
        },
        {
            "ID": "kept-embeddings",
            "Status": "Enabled",
            "Filter": {"Prefix": f"{names.CACHES}/"},
            "Expiration": {"Days": DAYS_OF_CACHE},
        },
    ]
    return _of(bucket, account) | {"LifecycleConfiguration": {"Rules": rules}}


def build_bucket_tags(bucket: str, account: str) -> dict[str, Any]:
    """Build the s3:PutBucketTagging request, which marks the bucket as created by ragcun."""
    return _of(bucket, account) | {"Tagging": {"TagSet": [{"Key": TAG, "Value": "runs"}]}}


def build_launch_lock(bucket: str, account: str, run: str, content: bytes) -> dict[str, Any]:
    """Build the s3:PutObject request for a new launch.json: two launches of one name cannot both start."""
    return build_object(bucket, account, names.prefix_of(run) + LAUNCH_FILE, content) | {"IfNoneMatch": "*"}


def _of(bucket: str, account: str) -> dict[str, Any]:
    # S3 itself refuses a bucket of this name that another account owns.
    return {"Bucket": bucket, "ExpectedBucketOwner": account}


def ensure_bucket(aws: Aws, account: str, bucket: str, region: str, is_users: bool) -> None:
    """Create ragcun's bucket if it does not exist, and make sure that it is private and encrypted.

    It stays when a launch fails: S3 may refuse a deleted bucket's name for up to an hour. A bucket that the user
    created and named (is_users) is left unchanged, and must be private.

    Raises:
        EnvironmentUnfit: if it belongs to another account, or is not private.
    """
    is_there = is_ours(aws, account, bucket, region)
    if is_users:
        if not is_there:
            raise UsageError(
                f"--bucket {bucket}: there is no such bucket",
                "Create it, or omit --bucket: ragcun then creates its own.",
            )
        return _require_private(aws, account, bucket, region)
    if not is_there:
        try:
            aws.call("s3", "create_bucket", build_bucket(bucket, region), region=region)
        except AwsError as error:
            if error.code == "BucketAlreadyExists":
                raise bucket_is_taken(bucket) from None
            if error.code != "BucketAlreadyOwnedByYou":
                raise
    for operation, request in (
        ("put_public_access_block", build_public_access_block(bucket, account)),
        ("put_bucket_encryption", build_encryption(bucket, account)),
        ("put_bucket_lifecycle_configuration", build_lifecycle(bucket, account)),
        ("put_bucket_tagging", build_bucket_tags(bucket, account)),
    ):
        aws.call("s3", operation, request, region=region)
    return None


def is_ours(aws: Aws, account: str, bucket: str, region: str) -> bool:
    """Return whether the account has this bucket.

    Raises:
        EnvironmentUnfit: if it belongs to another account.
    """
    request = _of(bucket, account)
    try:
        return aws.ask("s3", "head_bucket", request, region=region, absent=NO_BUCKET) is not None
    except AwsError as error:
        if error.code in NOT_OURS:
            raise bucket_is_taken(bucket) from None
        raise


def bucket_is_taken(bucket: str) -> EnvironmentUnfit:
    """Build the error for a bucket that belongs to another account."""
    return EnvironmentUnfit(
        f"bucket {bucket}: it belongs to somebody else, or you may not use it", "Use another one: --bucket NAME"
    )


def _require_private(aws: Aws, account: str, bucket: str, region: str) -> None:
    absent = ("NoSuchPublicAccessBlockConfiguration",)
    answer = aws.ask("s3", "get_public_access_block", _of(bucket, account), region=region, absent=absent)
    blocked = (answer or {}).get("PublicAccessBlockConfiguration", {})
    needed = build_public_access_block(bucket, account)["PublicAccessBlockConfiguration"]
    if any(not blocked.get(key) for key in needed):
        raise EnvironmentUnfit(
            f"bucket {bucket}: public access to it is not blocked",
            "Block it (S3 console, Permissions, Block all public access), or omit --bucket.",
        )


def claim_run(record: RunRecord, launch: LaunchRecord) -> None:
    """Write launch.json unless it already exists.

    Raises:
        UsageError: if it exists, because another launch of this name came first.
    """
    request = build_launch_lock(record.bucket, record.account, record.run, as_json(launch.as_json()))
    try:
        record.aws.call("s3", "put_object", request, region=record.region)
    except AwsError as error:
        if error.code in CONFLICT:
            there = record.launch()
            if there is not None and there.id == launch.id:
                return  # it is ours: the first response was lost, and boto3 retried
            raise UsageError(
                f"--run {record.run}: another launch with this name has just started",
                f"Check it: ragcun aws status {record.run}; or choose another name.",
            ) from None
        raise


def release_run(record: RunRecord, launch: LaunchRecord) -> None:
    """Remove the run's objects, if they are of this launch."""
    there = record.launch()
    if there is not None and there.id == launch.id:
        remove_objects(record)


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
        for key, path in uploads_of(plan.job):
            store.put(key, path)
    except OSError as error:
        raise AwsError(str(error)) from None


def uploads_of(job: Job) -> Iterator[tuple[str, Path]]:
    """Yield key and path of every user file that is uploaded with the run."""
    for each in job.inputs:
        for path in files_below(each.path):
            yield each.key if path == each.path else f"{each.key}/{path.relative_to(each.path).as_posix()}", path


def remove_objects(record: RunRecord) -> int:
    """Remove all the run's objects; return how many. launch.json goes last: until then the run can be found.

    Raises:
        AwsError: if one cannot be removed.
    """
    store, caches = record.store(), record.caches()
    try:
        keys = sorted(store.keys(""), key=lambda key: key == LAUNCH_FILE)
        cached = caches.keys("")
        caches.delete(cached)
        store.delete(keys)
    except OSError as error:
        raise AwsError(str(error)) from None
    return len(keys) + len(cached)


def remove_bucket_if_empty(aws: Aws, bucket: str, region: str) -> bool:
    """Remove the bucket if it is empty; return whether it is gone."""
    found = aws.call("s3", "list_objects_v2", {"Bucket": bucket, "MaxKeys": 1}, region=region)
    if found.get("KeyCount", 0):
        return False
    aws.ask("s3", "delete_bucket", {"Bucket": bucket}, region=region, absent=("NoSuchBucket", "BucketNotEmpty"))
    return True


def buckets_of_ragcun(aws: Aws, account: str, region: str) -> Sequence[str]:
    """List the account's buckets that ragcun created."""
    request = {"Prefix": f"{names.PREFIX}{account}-"}
    return [each["Name"] for each in aws.call("s3", "list_buckets", request, region=region).get("Buckets", [])]
