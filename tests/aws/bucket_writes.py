"""What others write into a run's prefix, past ragcun's own code: a machine, a colleague, somebody hostile."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3

from ragcun_cli.aws.record import RunRecord
from tests.aws.cloud import HOME

CONTENT = b"written by the machine\n"


def put(record: RunRecord, key: str, content: bytes = CONTENT, **more: str) -> None:
    """An object below the run's prefix; more: further parameters of S3's, such as StorageClass."""
    s3 = boto3.client("s3", region_name=HOME)
    s3.put_object(Bucket=record.bucket, Key=record.prefix + key, Body=content, **more)


def rewrite(record: RunRecord, change: Callable[[dict[str, Any]], Any]) -> None:
    """launch.json, changed in place."""
    content = record.read_json("launch.json")
    change(content)
    put(record, "launch.json", json.dumps(content).encode())
