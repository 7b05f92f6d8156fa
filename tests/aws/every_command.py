"""Every command of `ragcun aws`, with the options that make calls of their own."""

from __future__ import annotations

from pathlib import Path

import boto3

from ragcun_cli.aws.record import RunRecord, as_json
from ragcun_cli.files import sha256_of_file
from tests.aws.cloud import ACCOUNT, HOME, Cloud
from tests.conftest import Finished, RunCommand

BUCKET = f"ragcun-{ACCOUNT}-{HOME}"


def use_everything(cloud: Cloud, checkout: Path, folder: Path, ragcun: RunCommand) -> None:
    """From the plan to the removal; `ragcun` finds the cloud's account."""

    def succeeds(*arguments: str | Path) -> Finished:
        done = ragcun("aws", *arguments)
        assert done.exit_code == 0, (arguments, done.stderr)
        return done

    common = ("--recipe", "isotropy", "--code", checkout, "--yes")
    whole = ("--nodes", "2", "--email", "someone@example.org", "--max-cost", "2000", "--instance", "p4d.24xlarge")
    succeeds("plan", *whole, "--recipe", "isotropy")
    own_data = folder / "triples.jsonl"
    own_data.write_text('{"query": "q", "positive": "p"}\n' * 100)
    succeeds("launch", *common, *whole, "--set", f"data.train={own_data}")
    succeeds("status")
    record = RunRecord(cloud.aws(), ACCOUNT, BUCKET, HOME, "isotropy")
    say(record, state="interrupted")
    end_machines()
    succeeds("launch", "--resume", "--run", "isotropy", "--yes")
    upload_results(record, folder)
    say(record, state="finished", attempt=2)
    end_machines()
    succeeds("logs", "isotropy", "--follow")
    succeeds("watch", "isotropy")
    succeeds("fetch", "isotropy", "--to", folder / "here")
    succeeds("gc")
    unused_disk()
    succeeds("gc", "--delete", "--yes", "--region", HOME)
    succeeds("terminate", "isotropy", "--yes")
    succeeds("launch", *common, "--instance", "g5.xlarge", "--run", "second")
    succeeds("terminate", "second", "--yes")
    boto3.client("s3", region_name=HOME).create_bucket(Bucket="my-own-bucket")
    own = ragcun("aws", "launch", *common, "--instance", "g5.xlarge", "--bucket", "my-own-bucket")
    assert "public access to it is not blocked" in own.stderr


def say(record: RunRecord, state: str, attempt: int = 1, **more: object) -> None:
    """What the run's machine would write of itself."""
    content = {"state": state, "stage": "training", "attempt": attempt, "updated": "2026-11-23T12:00:00+00:00", **more}
    boto3.client("s3", region_name=HOME).put_object(
        Bucket=record.bucket, Key=f"{record.prefix}status.json", Body=as_json(content)
    )


def upload_results(record: RunRecord, folder: Path) -> None:
    """A result, as the machine's uploads would leave it."""
    path = folder / "scifact.json"
    path.write_text("{}")
    client = boto3.client("s3", region_name=HOME)
    client.upload_file(str(path), record.bucket, f"{record.prefix}results/isotropy/scifact.json")
    entry = {"bytes": 2, "sha256": sha256_of_file(path)}
    listed = as_json({"files": {"results/isotropy/scifact.json": entry}})
    client.put_object(Bucket=record.bucket, Key=f"{record.prefix}files.json", Body=listed)


def end_machines() -> None:
    """As a shutdown does, or EC2."""
    ec2 = boto3.client("ec2", region_name=HOME)
    ids = [each["InstanceId"] for part in ec2.describe_instances()["Reservations"] for each in part["Instances"]]
    ec2.terminate_instances(InstanceIds=ids)


def unused_disk() -> None:
    """One that bears the tag, and belongs to no machine."""
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "ragcun:run", "Value": "isotropy"}]}]
    zone = f"{HOME}a"
    boto3.client("ec2", region_name=HOME).create_volume(AvailabilityZone=zone, Size=1, TagSpecifications=tags)
