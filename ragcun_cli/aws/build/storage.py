"""The bucket: private, encrypted, and cleaned of what uploads left half done."""

from __future__ import annotations

from typing import Any

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import GLOBAL

BUCKET_TAG = "ragcun"
DAYS_OF_AN_UPLOAD = 2
DAYS_OF_CACHE = 14


def build_bucket(bucket: str, region: str) -> dict[str, Any]:
    """Of s3:CreateBucket. The oldest region must not be named. Access lists are off in new buckets by themselves."""
    place = {} if region == GLOBAL else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    return {"Bucket": bucket, **place}


def build_public_access_block(bucket: str, account: str) -> dict[str, Any]:
    """Of s3:PutPublicAccessBlock: nothing in it can be made public."""
    every = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    return _of(bucket, account) | {"PublicAccessBlockConfiguration": dict.fromkeys(every, True)}


def build_encryption(bucket: str, account: str) -> dict[str, Any]:
    """Of s3:PutBucketEncryption, with S3's own keys."""
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}
    return _of(bucket, account) | {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}


def build_lifecycle(bucket: str, account: str) -> dict[str, Any]:
    """Of s3:PutBucketLifecycleConfiguration. Results and models stay until somebody removes them."""
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
    """Of s3:PutBucketTagging: marks the bucket as one that ragcun made."""
    return _of(bucket, account) | {"Tagging": {"TagSet": [{"Key": BUCKET_TAG, "Value": "runs"}]}}


def build_launch_lock(bucket: str, account: str, run: str, content: bytes) -> dict[str, Any]:
    """Of s3:PutObject: the run's launch.json, which must not exist yet. Two launches of one name cannot both begin."""
    return build_object(bucket, account, names.prefix_of(run) + LAUNCH_FILE, content) | {"IfNoneMatch": "*"}


LAUNCH_FILE = "launch.json"


def build_object(bucket: str, account: str, key: str, content: bytes) -> dict[str, Any]:
    """Of s3:PutObject; S3 compares the content with its SHA-256 as it arrives."""
    return _of(bucket, account) | {"Key": key, "Body": content, "ChecksumAlgorithm": "SHA256"}


def _of(bucket: str, account: str) -> dict[str, Any]:
    # A bucket of this name that another account owns is refused by S3 itself.
    return {"Bucket": bucket, "ExpectedBucketOwner": account}
