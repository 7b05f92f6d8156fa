"""Every request of a launch, as boto3 sends it, against what must hold for each."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ragcun_cli.aws.resources.template import LARGEST
from tests.aws.cloud import Cloud, make_boundary
from tests.aws.launch_builders import launch_for

TAG = {"Key": "ragcun:run", "Value": "isotropy"}
# What looks like a key of AWS's, a token of the hub's, or words for one.
SECRET = re.compile(
    r"AKIA|ASIA|hf_[A-Za-z0-9]|aws_secret|SECRET_ACCESS_KEY|password|BEGIN .*PRIVATE KEY", re.IGNORECASE
)


LAUNCHES: dict[str, dict[str, Any]] = {
    "one spot machine": {},
    "two nodes with a budget": {"nodes": 2, "email": "someone@example.org"},
    "on demand": {"on_demand": True},
}


@pytest.fixture(scope="module", params=LAUNCHES)
def launched(checkout: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    """What a launch sent. Secrets are in the environment."""
    from moto import mock_aws

    cloud = Cloud()
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        make_boundary()
        patch.setenv("HF_TOKEN", "hf_testtesttest")
        patch.setenv("WANDB_API_KEY", "0123456789abcdef-wandb")
        launch_for(cloud, checkout, **LAUNCHES[request.param])
    return cloud


def template(cloud: Cloud) -> dict[str, Any]:
    (request,) = cloud.requests("CreateLaunchTemplate")
    data: dict[str, Any] = request["LaunchTemplateData"]
    return data


def test_machines_take_imdsv2_alone(launched: Cloud) -> None:
    options = template(launched)["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)


def test_disks_are_encrypted_and_go_with_their_machine(launched: Cloud) -> None:
    for disk in template(launched)["BlockDeviceMappings"]:
        ebs = disk["Ebs"]
        assert (ebs["Encrypted"], ebs["DeleteOnTermination"], ebs["VolumeType"]) == (True, True, "gp3")


def test_a_shutdown_ends_the_machine_and_no_key_opens_it(launched: Cloud) -> None:
    assert template(launched)["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert "KeyName" not in template(launched)


def test_nothing_comes_in(launched: Cloud) -> None:
    """But between nodes of one run, by their group; never from an address."""
    for request in launched.requests("AuthorizeSecurityGroupIngress"):
        for rule in request["IpPermissions"]:
            assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [request["GroupId"]]
            assert not rule.get("IpRanges")
            assert not rule.get("Ipv6Ranges")
    nodes = launched.requests("CreateFleet")[0]["TargetCapacitySpecification"]["TotalTargetCapacity"]
    assert len(launched.requests("AuthorizeSecurityGroupIngress")) == (nodes > 1)


def test_the_bucket_is_private_encrypted_and_cleaned(launched: Cloud) -> None:
    (block,) = launched.requests("PutPublicAccessBlock")
    assert set(block["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(block["PublicAccessBlockConfiguration"]) == 4
    (encryption,) = launched.requests("PutBucketEncryption")
    rule = encryption["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    (created,) = launched.requests("CreateBucket")
    assert created == {"Bucket": "ragcun-123456789012-us-east-1"}  # access lists are off by themselves
    (lifecycle,) = launched.requests("PutBucketLifecycleConfiguration")
    rules = lifecycle["LifecycleConfiguration"]["Rules"]
    assert any("AbortIncompleteMultipartUpload" in rule for rule in rules)
    assert [rule["Filter"] for rule in rules if "Expiration" in rule] == [{"Prefix": "caches/"}]


def test_objects_are_compared_with_their_digest_and_go_to_no_other_account(launched: Cloud) -> None:
    for request in launched.requests("PutObject"):
        assert request["ChecksumAlgorithm"] == "SHA256"
        assert request["ExpectedBucketOwner"] == "123456789012"
        assert request["Key"].startswith("runs/isotropy/")


def test_only_one_launch_can_have_a_name(launched: Cloud) -> None:
    first = next(each for each in launched.requests("PutObject") if each["Key"].endswith("launch.json"))
    assert first["IfNoneMatch"] == "*"


def test_everything_bears_the_tag(launched: Cloud) -> None:
    for operation in ("CreateSecurityGroup", "CreateLaunchTemplate", "CreateFleet", "CreatePlacementGroup"):
        for request in launched.requests(operation):
            assert all(TAG in each["Tags"] for each in request["TagSpecifications"]), operation
    inside = {each["ResourceType"]: each["Tags"] for each in template(launched)["TagSpecifications"]}
    assert set(inside) == {"instance", "volume", "network-interface"}
    assert all(TAG in tags for tags in inside.values())
    for operation in ("CreateRole", "CreateInstanceProfile"):
        assert all(TAG in request["Tags"] for request in launched.requests(operation))
    (group,) = launched.requests("CreateLogGroup")
    assert group["tags"] == {"ragcun:run": "isotropy"}


def test_the_fleet_asks_once_over_all_zones(launched: Cloud) -> None:
    (fleet,) = launched.requests("CreateFleet")
    assert fleet["Type"] == "instant"
    assert len(fleet["ClientToken"]) == 64
    zones = fleet["LaunchTemplateConfigs"][0]["Overrides"]
    assert len({zone["SubnetId"] for zone in zones}) == len(zones) > 1
    market = fleet["TargetCapacitySpecification"]["DefaultTargetCapacityType"]
    options = fleet["SpotOptions" if market == "spot" else "OnDemandOptions"]
    assert options["AllocationStrategy"] == ("price-capacity-optimized" if market == "spot" else "lowest-price")
    assert "MaxPrice" not in json.dumps(fleet)  # AWS: it leads to more interruptions
    nodes = fleet["TargetCapacitySpecification"]["TotalTargetCapacity"]
    assert options["MinTargetCapacity"] == nodes
    # One machine on demand may be in any zone: the option could fix one before its capacity is known.
    assert ("SingleAvailabilityZone" in options) == (nodes > 1 or market == "spot")


def test_nodes_are_near_each_other(launched: Cloud) -> None:
    groups = [request["GroupName"] for request in launched.requests("CreatePlacementGroup")]
    assert [template(launched).get("Placement", {}).get("GroupName")] == (groups or [None])


def test_a_schedule_outside_ends_the_machines_after_their_own_timer(launched: Cloud) -> None:
    schedules = launched.requests("CreateSchedule")
    nodes = launched.requests("CreateFleet")[0]["TargetCapacitySpecification"]["TotalTargetCapacity"]
    # One for each: EC2 refuses a request that names a machine which it has forgotten.
    assert [len(json.loads(each["Target"]["Input"])["InstanceIds"]) for each in schedules] == [1] * nodes
    for schedule in schedules:
        target = schedule["Target"]
        assert target["Arn"] == "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
        assert target["RoleArn"] == "arn:aws:iam::123456789012:role/ragcun/ragcun-isotropy-deadline"
        assert schedule["ActionAfterCompletion"] == "DELETE"
    assert user_data(launched).splitlines()[1].startswith('shutdown -h "+600"')


def test_a_budget_mails_at_three_shares_of_the_most_it_may_cost(launched: Cloud) -> None:
    for request in launched.requests("CreateBudget"):
        thresholds = [each["Notification"]["Threshold"] for each in request["NotificationsWithSubscribers"]]
        assert thresholds == [50.0, 80.0, 100.0]
        assert request["Budget"]["CostFilters"] == {"TagKeyValue": ["user:ragcun:run$isotropy"]}
        # Two machines and their disks, for ten hours.
        assert float(request["Budget"]["BudgetLimit"]["Amount"]) == pytest.approx(2 * 10.25 * 22.03, rel=0.001)


def test_no_secret_is_sent_but_in_the_signature(launched: Cloud) -> None:
    assert len(user_data(launched).encode()) < LARGEST
    for service, operation, request in launched.sent:
        text = repr({**request, "Body": b""}) if operation == "PutObject" else repr(request)
        assert not SECRET.search(text), (service, operation)
    assert not SECRET.search(user_data(launched))
    assert "wandb" not in user_data(launched)


def user_data(cloud: Cloud) -> str:
    return base64.b64decode(template(cloud)["UserData"]).decode()
