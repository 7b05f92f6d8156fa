"""What S3 answers to those who may list one prefix only: moto answers as to the owner of all."""

from __future__ import annotations

import boto3
import pytest
from botocore.stub import Stubber

from ragcun_cli.storage.s3 import S3Store

ABSENT = {"Bucket": "b", "Key": "runs/a/status.json"}
LISTED = {"Bucket": "b", "Prefix": "runs/a/status.json"}


@pytest.mark.parametrize(("listed", "error"), [([], None), ([{"Key": "runs/a/status.json"}], PermissionError)])
def test_an_object_that_may_not_be_read_and_is_not_listed_is_not_there(
    listed: list[dict[str, str]], error: type[OSError] | None
) -> None:
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as stub:
        stub.add_client_error("get_object", "AccessDenied", "Access Denied", 403, expected_params=ABSENT)
        stub.add_response("list_objects_v2", {"Contents": listed, "IsTruncated": False}, LISTED)
        place = S3Store(client, "b", "runs/a/")
        if error is None:
            assert place.read("status.json") is None
        else:
            with pytest.raises(error):
                place.read("status.json")
        stub.assert_no_pending_responses()
