"""Requests for the bucket: private, encrypted, and cleaned of unfinished uploads."""

from __future__ import annotations

from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import GLOBAL

BUCKET_TAG = "ragcun"
DAYS_OF_AN_UPLOAD = 2
DAYS_OF_CACHE = 14


def build_bucket(bucket: str, region: str) -> dict[str, Any]:
    """Build the s3:CreateBucket request. us-east-1 must not be named. New buckets have access lists off by default."""
    place = {} if region == GLOBAL else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    return {"Bucket": bucket, **place}


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
    return _of(bucket, account) | {"Tagging": {"TagSet": [{"Key": BUCKET_TAG, "Value": "runs"}]}}


def build_launch_lock(bucket: str, account: str, run: str, content: bytes) -> dict[str, Any]:
    """Build the s3:PutObject request for a new launch.json: two launches of one name cannot both start."""
    return build_object(bucket, account, names.prefix_of(run) + LAUNCH_FILE, content) | {"IfNoneMatch": "*"}


LAUNCH_FILE = "launch.json"


def build_object(bucket: str, account: str, key: str, content: bytes) -> dict[str, Any]:
    """Build the s3:PutObject request; S3 verifies the content's SHA-256 on arrival."""
    return _of(bucket, account) | {"Key": key, "Body": content, "ChecksumAlgorithm": "SHA256"}


def _of(bucket: str, account: str) -> dict[str, Any]:
    # S3 itself refuses a bucket of this name that another account owns.
    return {"Bucket": bucket, "ExpectedBucketOwner": account}
