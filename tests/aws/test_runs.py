"""`ragcun aws status`, `launch --resume`, `fetch`, `terminate`, `gc`, `shell`: a run that was launched."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import boto3
import pytest

from ragcun_cli.aws.record import RunRecord
from tests.aws.account_contents import leftovers
from tests.aws.cloud import ACCOUNT, HOME, Cloud, refused
from tests.aws.command_answers import account_user_data, no_capacity, refuses
from tests.aws.every_command import BUCKET, end_machines, make_older, say, upload_results
from tests.conftest import RunCommand


def test_status_says_how_the_run_stands(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, record: RunRecord
) -> None:
    ragcun(*launch)
    assert "starting" in ragcun("aws", "status", "isotropy").stdout
    training = {"name": "isotropy", "state": "running", "step": 50, "total_steps": 1000, "loss": 1.25}
    say(record, state="running", trainings=[training])
    shown = ragcun("aws", "status", "isotropy").stdout
    for expected in ("running", "isotropy 50/1000 loss 1.250", "of 24", "$0.00", f"s3://{BUCKET}/runs/isotropy/"):
        assert expected in shown
    assert "5%" in ragcun("aws", "status").stdout
    end_machines()
    assert json.loads(ragcun("aws", "status", "isotropy", "--json").stdout)["state"] == "lost"
    say(record, state="interrupted")
    assert json.loads(ragcun("aws", "status", "isotropy", "--json").stdout)["state"] == "interrupted"


def test_an_interrupted_run_is_gone_on_with_only_when_asked(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, record: RunRecord
) -> None:
    ragcun(*launch)
    say(record, state="interrupted")
    end_machines()
    refuses(ragcun(*launch), 2, "run isotropy already exists: it is interrupted", "--run isotropy --resume")
    done = ragcun("aws", "launch", "--recipe", "isotropy", "--resume", "--on-demand", "--yes", "--json")
    assert json.loads(done.stdout)["number"] == 2
    attempts = (record.read_json("launch.json") or {})["attempts"]
    assert [attempt["number"] for attempt in attempts] == [1, 2]
    assert attempts[0]["ended"] >= attempts[0]["started"]
    fleet = account.requests("CreateFleet")[-1]
    assert fleet["TargetCapacitySpecification"]["DefaultTargetCapacityType"] == "on-demand"
    refuses(ragcun("aws", "launch", "--recipe", "isotropy", "--resume", "--yes"), 2, "already has a machine")


def test_a_run_that_has_used_its_hours_is_not_gone_on_with(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, record: RunRecord
) -> None:
    ragcun(*launch, "--max-hours", "1")
    make_older(record, hours=2)
    say(record, state="interrupted")
    end_machines()
    refuses(
        ragcun("aws", "launch", "--resume", "--run", "isotropy", "--yes"),
        2,
        "has used 2.00 of its 1 hours",
        "--max-hours",
    )
    done = ragcun("aws", "launch", "--resume", "--run", "isotropy", "--yes", "--max-hours", "4")
    assert done.exit_code == 0
    # Two of four hours are used, and perhaps a moment.
    assert account_user_data(account).splitlines()[1].startswith(('shutdown -h "+120"', 'shutdown -h "+119"'))


def test_a_failed_relaunch_keeps_what_the_run_has(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, record: RunRecord
) -> None:
    ragcun(*launch)
    say(record, state="interrupted")
    end_machines()
    account.answers["CreateFleet"] = lambda asked: no_capacity("InsufficientInstanceCapacity")
    done = ragcun("aws", "launch", "--resume", "--run", "isotropy", "--yes")
    assert done.exit_code == 4
    assert record.launch() is not None
    assert {"objects", "role ragcun-isotropy", "log group"} <= leftovers(account)
    assert "machine us-east-1" not in leftovers(account)


def test_terminate_touches_only_what_bears_the_tag(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    ec2 = boto3.client("ec2", region_name=HOME)
    images = ec2.describe_images()["Images"]
    other = ec2.run_instances(ImageId=images[0]["ImageId"], MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    ragcun(*launch)
    ragcun(*launch, "--run", "second")
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    alive = [{"Name": "instance-state-name", "Values": ["running"]}]
    running = [each for part in ec2.describe_instances(Filters=alive)["Reservations"] for each in part["Instances"]]
    assert {each["InstanceId"] for each in running} >= {other}
    assert len(running) == 2
    assert "role ragcun-second" in leftovers(account)
    assert "role ragcun-isotropy" not in leftovers(account)
    ec2.terminate_instances(InstanceIds=[other])
    gone = json.loads(ragcun("aws", "terminate", "second", "--yes", "--json").stdout)
    assert (gone["run"], gone["kept"], gone["objects_removed"] > 0) == ("second", None, True)
    assert leftovers(account) == set()


def test_terminate_can_keep_the_objects(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    ragcun(*launch)
    done = ragcun("aws", "terminate", "isotropy", "--keep-bucket", "--yes")
    assert done.exit_code == 0
    assert leftovers(account) == {"objects"}


def test_fetch_compares_checksums(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, record: RunRecord, tmp_path: Path
) -> None:
    ragcun(*launch)
    upload_results(record, tmp_path)
    here = tmp_path / "here"
    done = ragcun("aws", "fetch", "isotropy", "--to", here, "--json")
    assert json.loads(done.stdout)["files"] == 1
    assert json.loads(ragcun("aws", "fetch", "isotropy", "--to", here, "--json").stdout)["unchanged"] == 1
    path = here / "results/isotropy/scifact.json"
    path.unlink()
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"{record.prefix}results/isotropy/scifact.json", Body=b"[]")
    other = f"{record.prefix}results/isotropy/nfcorpus.json"
    boto3.client("s3").put_object(Bucket=BUCKET, Key=other, Body=b"{}")  # of a machine that ended in haste
    refuses(ragcun("aws", "fetch", "isotropy", "--to", here), 1, "its sha256 differs from the uploaded one")
    assert not path.exists()
    assert (here / "results/isotropy/nfcorpus.json").exists()
    refuses(ragcun("aws", "fetch", "isotropy", "--parts", "result"), 2, "choose from results, report, logs")


def test_a_run_that_is_not_there(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    refuses(ragcun("aws", "status", "nothing"), 2, "there is no run of this name", "No run has been launched")
    ragcun(*launch)
    for command in ("status", "logs", "fetch", "terminate", "watch", "shell"):
        refuses(ragcun("aws", command, "nothing"), 2, "nothing: there is no run of this name", "Runs: isotropy")


def test_shell_goes_through_aws_own_program(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    ragcun(*launch)
    monkeypatch.setenv("PATH", "/nowhere")
    refuses(ragcun("aws", "shell", "isotropy"), 4, "aws is not installed", "AWS_SETUP.md")
    called = []
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("os.execvp", lambda program, arguments: called.append(arguments))
    ragcun("aws", "shell", "isotropy")
    assert called[0][:4] == ["aws", "ssm", "start-session", "--target"]
    end_machines()
    refuses(ragcun("aws", "shell", "isotropy"), 2, "has no machine now")


def test_gc_finds_what_nobody_uses(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nothing of ragcun's in 2 regions" in ragcun("aws", "gc").stderr
    ragcun(*launch)
    ragcun(*launch, "--run", "running")
    record = RunRecord(account.aws(), ACCOUNT, BUCKET, HOME, "isotropy")
    boto3.client("ec2", region_name=HOME).terminate_instances(
        InstanceIds=(record.read_json("launch.json") or {})["attempts"][0]["instances"]
    )
    found = json.loads(ragcun("aws", "gc", "--json").stdout)
    in_use = {each["run"] for each in found if each["in_use"]}
    assert in_use == {"running"}
    kinds = {each["kind"] for each in found if each["run"] == "isotropy"}
    assert kinds == {
        "launch template", "security group", "log group", "schedule", "instance profile", "role", "deadline role"
    }  # fmt: skip
    assert ragcun("aws", "gc", "--delete", "--yes").exit_code == 0
    assert {each["run"] for each in json.loads(ragcun("aws", "gc", "--json").stdout)} == {"running"}
    assert ragcun("aws", "gc", "--delete", "--all", "--yes").exit_code == 0
    assert json.loads(ragcun("aws", "gc", "--json").stdout) == []


def test_gc_says_which_regions_it_could_not_ask(account: Cloud, ragcun: RunCommand) -> None:
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    account.before = lambda service, operation: (
        refused("AuthFailure", operation) if operation == "DescribeInstances" else None
    )
    done = ragcun("aws", "gc")
    assert "could not be checked: us-east-1" in done.stderr


def test_two_commands_cannot_start_the_same_attempt(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, record: RunRecord
) -> None:
    """Between reading launch.json and replacing it another `--resume` was there."""
    ragcun(*launch)
    say(record, state="interrupted")
    end_machines()

    def meanwhile(service: str, operation: str) -> None:
        if operation == "GetProducts":  # after the run was read, before the attempt is begun
            changed = {**(record.read_json("launch.json") or {}), "created": "2026-01-01T00:00:00+00:00"}
            account.after = lambda service, operation: None
            record.write_json("launch.json", changed)

    images = boto3.client("ec2", region_name=HOME).describe_images(Owners=["898082745236"])["Images"]
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "ragcun:run", "Value": "isotropy"}]}]
    ec2 = boto3.client("ec2", region_name=HOME)

    plans = 0

    def started_by_another(service: str, operation: str) -> None:
        nonlocal plans
        plans += operation == "GetProducts"
        if plans == 2:  # the first plan is the one that is shown
            ec2.run_instances(ImageId=images[0]["ImageId"], MinCount=1, MaxCount=1, TagSpecifications=tags)
            meanwhile(service, operation)

    account.after = started_by_another
    done = ragcun("aws", "launch", "--resume", "--run", "isotropy", "--yes")
    refuses(done, 2, "another command has just changed it")
    assert len(account.requests("CreateFleet")) == 1
    assert "machine us-east-1" in leftovers(account)  # the other command's


def test_a_run_that_goes_on_keeps_its_work(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    resume = ("aws", "launch", "--resume", "--run", "isotropy", "--yes")
    for option in (("--seeds", "0,1"), ("--recipe", "frozen"), ("--datasets", "scifact"), ("--precision", "bf16")):
        refuses(
            ragcun(*resume, *option),
            2,
            f"--resume: the run keeps its own {option[0]}",
            "For other work, launch another run",
        )
    refuses(ragcun(*resume, "--nodes", "2"), 2, "the run keeps its own --nodes")
    refuses(ragcun(*resume, "--set", "seed=3"), 2, "the run keeps its own --set")


def test_a_run_can_go_on_with_mended_code(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, record: RunRecord, tmp_path: Path
) -> None:
    ragcun(*launch)
    before = (record.read_json("launch.json") or {})["code"]
    say(record, state="failed")
    end_machines()
    folder = tmp_path / "mended"
    subprocess.run(["cp", "-r", str(launch[7]), str(folder)], check=True)
    (folder / "ragcun_cli/main.py").write_text("mended\n")
    resume = ("aws", "launch", "--resume", "--run", "isotropy", "--yes", "--code", folder)
    refuses(ragcun(*resume), 2, "ragcun_cli/main.py", "--allow-changes")
    assert ragcun(*resume, "--allow-changes").exit_code == 0
    after = (record.read_json("launch.json") or {})["code"]
    assert after["sha256"] != before["sha256"]
    assert f"RAGCUN_CODE={after['sha256']}" in account_user_data(account)
    assert record.store().read(f"code/{after['sha256']}.tar.gz")


def test_nothing_that_is_saved_is_no_reason_to_remove_it(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, tmp_path: Path
) -> None:
    ragcun(*launch)
    done = ragcun("aws", "fetch", "isotropy", "--to", tmp_path / "here")
    assert done.stderr.strip() == "Nothing has been saved yet: the run is starting."


def test_gc_of_one_region_knows_of_machines_in_others(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    ragcun(*launch)
    assert ragcun("aws", "gc", "--delete", "--yes", "--region", "us-west-2").exit_code == 0
    assert {"role ragcun-isotropy", "instance profile", "machine us-east-1"} <= leftovers(account)
    account.before = lambda service, operation: (
        refused("AccessDenied", operation) if operation == "DescribeInstances" else None
    )
    assert "could not be checked" in ragcun("aws", "gc", "--delete", "--yes").stderr
    account.before = lambda service, operation: None
    assert {"role ragcun-isotropy", "instance profile", "machine us-east-1"} <= leftovers(account)


def test_bills_that_may_not_be_seen_hold_up_nothing(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    account.before = lambda service, operation: refused("AccessDenied", operation) if service == "budgets" else None
    ragcun(*launch)
    done = ragcun("aws", "gc", "--json")
    assert "machine" in {each["kind"] for each in json.loads(done.stdout)}
    assert "could not be checked: budgets" in done.stderr
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "UnauthorizedOperation"])
def test_gc_removes_nothing_while_machines_cannot_be_looked_for(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, code: str
) -> None:
    """The machine that is there would lose the schedule that ends it."""
    ragcun(*launch)
    before = leftovers(account)
    account.before = lambda service, operation: refused(code, operation) if operation == "DescribeInstances" else None
    refuses(ragcun("aws", "gc", "--delete", "--yes"), 4, "nothing was removed", f"{HOME}, us-west-2", "--all")
    account.before = lambda service, operation: None
    assert leftovers(account) == before


def test_gc_counts_what_it_has_read(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    ragcun(*launch)
    assert "Found nothing of ragcun's in 1 region" in ragcun("aws", "gc", "--region", "us-west-2").stderr
    account.before = lambda service, operation: refused("AccessDenied", operation) if service != "sts" else None
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    account.before = lambda service, operation: (
        refused("AccessDenied", operation) if operation not in ("GetCallerIdentity", "DescribeRegions") else None
    )
    assert "Found nothing of ragcun's in 0 regions" in ragcun("aws", "gc").stderr


def test_what_is_asked_of_no_bucket_is_said(account: Cloud, ragcun: RunCommand) -> None:
    for command in (("status",), ("fetch", "x"), ("terminate", "x"), ("policy",), ("stage", "--from", ".")):
        refuses(ragcun("aws", *command, "--bucket", "a b*"), 2, "--bucket a b*: not a valid S3 bucket name")


def test_fetch_names_what_is_wrong_with_its_folder(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, tmp_path: Path
) -> None:
    ragcun(*launch)
    (tmp_path / "file").write_text("")
    refuses(ragcun("aws", "fetch", "isotropy", "--to", tmp_path / "file"), 2, "a file, not a folder")
    refuses(ragcun("aws", "fetch", "isotropy", "--parts", ""), 2, "--parts: name at least one of")
    done = ragcun("aws", "fetch", "isotropy", "--parts", "models", "--to", tmp_path / "here")
    assert "Nothing of models has been saved yet" in done.stderr
