"""Every command of `ragcun aws`, with the options that make calls of their own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import boto3

from ragcun_cli.aws.kept import keep
from ragcun_cli.aws.launch_record import now
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
    data = folder / "data"
    (data / "downloads").mkdir(parents=True)
    (data / "scifact.zip").write_bytes(b"a zip")
    succeeds("stage", "--datasets", "scifact", "--from", data)
    succeeds("gc")
    unused_disk()
    succeeds("gc", "--delete", "--yes", "--region", HOME)
    succeeds("terminate", "isotropy", "--yes")
    succeeds("launch", *common, "--instance", "g5.xlarge", "--run", "second")
    boto3.client("s3", region_name=HOME).delete_object(Bucket=BUCKET, Key="datasets/scifact.zip")
    succeeds("terminate", "second", "--yes", "--delete-bucket")
    boto3.client("s3", region_name=HOME).create_bucket(Bucket="my-own-bucket")
    own = ragcun("aws", "launch", *common, "--instance", "g5.xlarge", "--bucket", "my-own-bucket")
    assert "public access to it is not blocked" in own.stderr


def say(record: RunRecord, state: str, attempt: int = 1, **more: object) -> None:
    """What the run's machine would write of itself."""
    content = {"state": state, "stage": "training", "attempt": attempt, "updated": "2026-11-23T12:00:00+00:00", **more}
    boto3.client("s3", region_name=HOME).put_object(
        Bucket=record.bucket, Key=f"{record.prefix}status.json", Body=as_json(content)
    )


def make_older(record: RunRecord, hours: float, end: str | None = None) -> None:
    """As if the first attempt had begun that long ago, as this computer's copy knows too."""
    launch = record.launch()
    assert launch is not None
    started = (now() - timedelta(hours=hours)).isoformat()
    first = replace(launch.attempts[0], started=started, end=end or launch.attempts[0].end)
    older = launch.with_attempts([first, *launch.attempts[1:]])
    record.write_launch(older)
    keep(older, record.bucket)


def upload_results(record: RunRecord, folder: Path) -> None:
    """A result, as the machine's uploads would leave it."""
    path = folder / "scifact.json"
    path.write_text("{}")
    client = boto3.client("s3", region_name=HOME)
    client.upload_file(str(path), record.bucket, f"{record.prefix}results/isotropy/scifact.json")
    entry = {"bytes": 2, "sha256": sha256_of_file(path)}
    listed = as_json({"files": {"results/isotropy/scifact.json": entry}})
    client.put_object(Bucket=record.bucket, Key=f"{record.prefix}files.json", Body=listed)


def end_machines(
    code: str = "Server.SpotInstanceTermination", message: str = "EC2 took it back", region: str = HOME, when: str = ""
) -> None:
    """As EC2 does, for this reason; moto itself has only that of a user's request. when: of its end, if EC2 says."""
    from moto.ec2.models import ec2_backends

    ec2 = boto3.client("ec2", region_name=region)
    ids = [each["InstanceId"] for part in ec2.describe_instances()["Reservations"] for each in part["Instances"]]
    ec2.terminate_instances(InstanceIds=ids)
    for each in ids:
        instance = ec2_backends[ACCOUNT][region].get_instance(each)
        instance.state_reason.code, instance.state_reason.message = code, message
        instance._reason = f"{message} ({when} GMT)" if when else ""


def unused_disk() -> None:
    """One that bears the tag, and belongs to no machine."""
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "ragcun:run", "Value": "isotropy"}]}]
    zone = f"{HOME}a"
    boto3.client("ec2", region_name=HOME).create_volume(AvailabilityZone=zone, Size=1, TagSpecifications=tags)
