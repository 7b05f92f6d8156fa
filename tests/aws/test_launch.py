"""`ragcun aws launch`: what it starts, what it attaches to, what it refuses, and where no machine is to be had."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import boto3
import pytest

from ragcun_cli.aws import transient
from ragcun_cli.aws.calls import Aws, partition_of
from ragcun_cli.aws.launch_record import Attempt, now
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.aws.resources.kind import Making
from ragcun_cli.aws.resources.template import build_user_data
from tests.aws.account_contents import leftovers
from tests.aws.cloud import ACCOUNT, HOME, Cloud, refused
from tests.aws.command_answers import no_capacity, refuses, said
from tests.aws.conftest import commit
from tests.aws.every_command import BUCKET, end_machines, say
from tests.aws.launch_builders import plan_for
from tests.conftest import RunCommand


def test_no_capacity_anywhere(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    account.answers["CreateFleet"] = lambda asked: no_capacity("InsufficientInstanceCapacity")
    done = ragcun(*launch, "--region", "us-east-1,us-west-2")
    assert done.exit_code == 4
    for expected in ("us-east-1: no capacity", "us-west-2: no capacity", "--on-demand", "been removed"):
        assert expected in said(done)
    assert leftovers(account) == set()


def test_the_next_region_has_one(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    answers = iter([no_capacity("UnfulfillableCapacity"), None])
    account.answers["CreateFleet"] = lambda asked: next(answers)
    done = ragcun(*launch, "--region", "us-east-1", "--region", "us-west-2", "--json")
    assert json.loads(done.stdout)["region"] == "us-west-2"
    left = leftovers(account)
    assert {"machine us-west-2", "schedule us-west-2"} <= left
    assert not {each for each in left if "us-east-1" in each}


def test_a_quota_that_ec2_refuses_by(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    account.answers["CreateFleet"] = lambda asked: no_capacity("MaxSpotInstanceCountExceeded")
    done = ragcun(*launch)
    assert done.exit_code == 4
    assert "(L-3819A6DF) is used up" in said(done)


def test_fewer_nodes_than_asked_for_are_ended(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    """moto starts one machine for each override: the answer is made to name one of two."""
    account.answers["CreateFleet"] = lambda asked: {
        "FleetId": "fleet-1", "Instances": [{"InstanceIds": ["i-1"]}], "Errors": []
    }  # fmt: skip
    done = ragcun(*launch, "--nodes", "2")
    assert done.exit_code == 4
    assert leftovers(account) == set()


def test_a_bucket_that_somebody_else_has(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    account.before = lambda service, operation: refused("403", operation) if operation == "HeadBucket" else None
    done = ragcun(*launch, "--bucket", "taken")
    assert done.exit_code == 4
    assert "bucket taken: it belongs to somebody else" in said(done)
    account.before = lambda service, operation: None
    refuses(ragcun(*launch, "--bucket", "not-there"), 4, "--bucket not-there: there is no such bucket")
    account.before = lambda service, operation: (
        refused("BucketAlreadyExists", operation, 409) if operation == "CreateBucket" else None
    )
    assert "it belongs to somebody else" in said(ragcun(*launch))
    assert leftovers(account) == set()


def test_launch_asks_once_and_no_is_no(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer, expected in (("n\n", "not confirmed: nothing was done"), ("", "no answer was given")):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        done = ragcun(*launch[:-1])
        assert done.stderr.count("Launch isotropy? [y/N]") == 1
        refuses(done, 2, expected)
    assert leftovers(account) == set()
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert ragcun(*launch[:-1]).exit_code == 0


def test_a_second_launch_attaches(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    first = json.loads(ragcun(*launch, "--json").stdout)
    again = ragcun(*launch, "--json")
    assert "already exists: nothing was started" in again.stderr
    assert [machine["id"] for machine in json.loads(again.stdout)["machines"]] == first["instances"]
    assert len(account.requests("CreateFleet")) == 1


def test_a_name_in_use_by_another_run(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    ragcun(*launch, "--run", "mine")
    done = ragcun(*launch, "--run", "mine", "--set", "seed=5")
    refuses(done, 2, "--run mine: this name belongs to a run with different recipes", "ragcun aws terminate mine")


def test_two_launches_of_one_name_at_once(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    """The second finds nothing when it looks, and the first one's launch.json when it writes its own."""
    assert ragcun(*launch).exit_code == 0
    hidden = True

    def not_yet(service: str, operation: str) -> Exception | None:
        codes = {"GetObject": "NoSuchKey", "GetInstanceProfile": "NoSuchEntity"}
        return refused(codes[operation], operation, 404) if operation in codes and hidden else None

    def seen(service: str, operation: str) -> None:
        nonlocal hidden
        hidden = hidden and operation != "PutObject"

    account.before, account.after = not_yet, seen
    done = ragcun(*launch)
    assert "another launch with this name has just started" in said(done)
    account.before = account.after = lambda service, operation: None
    assert "objects" in leftovers(account)  # the first one's
    assert json.loads(ragcun("aws", "status", "isotropy", "--json").stdout)["state"] == "starting"


def test_a_dirty_checkout(account: Cloud, launch: list[str | Path], ragcun: RunCommand, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    subprocess.run(["cp", "-r", str(launch[7]), str(folder)], check=True)
    (folder / "README.md").write_text("changed\n")
    (folder / "ragcun_cli/new.py").write_text("new\n")
    for elsewhere in ("report.html", ".env"):  # what the project's own commands leave, and secrets
        (folder / elsewhere).write_text("a secret\n")
    launch[7] = folder
    done = ragcun(*launch)
    refuses(done, 2, "README.md", "ragcun_cli/new.py", "--allow-changes")
    assert "report.html" not in done.stderr
    assert leftovers(account) == set()
    done = ragcun(*launch, "--allow-changes")
    assert done.exit_code == 0
    assert "2 changed files are included" in done.stderr
    launched = RunRecord(account.aws(), ACCOUNT, BUCKET, HOME, "isotropy").read_json("launch.json")
    assert launched is not None
    assert launched["code"]["changed"] == ["README.md", "ragcun_cli/new.py"]
    archive = (RunRecord(account.aws(), ACCOUNT, BUCKET, HOME, "isotropy")).store()
    content = archive.read(f"code/{launched['code']['sha256']}.tar.gz") or b""
    with tarfile.open(fileobj=io.BytesIO(content)) as files:
        assert {"README.md", "ragcun_cli/new.py"} < set(files.getnames())
        assert not {"report.html", ".env"} & set(files.getnames())


def test_no_checkout(account: Cloud, launch: list[str | Path], ragcun: RunCommand, tmp_path: Path) -> None:
    launch[7] = tmp_path
    refuses(ragcun(*launch), 4, "not a checkout of ragcun", "--code FOLDER")
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "ragcun_cli/main.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    refuses(ragcun(*launch), 4, "not a git")
    commit(tmp_path)
    assert ragcun(*launch).exit_code == 0


def test_names_are_of_the_account_whatever_the_bucket(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    """A second run of a name, in another bucket, must not touch the first one's machine."""
    first = json.loads(ragcun(*launch, "--json").stdout)
    s3 = boto3.client("s3", region_name=HOME)
    s3.create_bucket(Bucket="mine")
    blocked = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    s3.put_public_access_block(Bucket="mine", PublicAccessBlockConfiguration=blocked)
    refuses(ragcun(*launch, "--bucket", "mine"), 2, "the account has parts of another run of this name")
    status = json.loads(ragcun("aws", "status", "isotropy", "--json").stdout)
    assert [machine["id"] for machine in status["machines"]] == first["instances"]
    assert "role ragcun-isotropy" in leftovers(account)
    done = ragcun(*launch, "--bucket", "mine", "--run", "other", "--json")
    assert done.exit_code == 0
    assert json.loads(ragcun("aws", "status", "other", "--bucket", "mine", "--json").stdout)["state"] == "starting"


def test_the_same_launch_with_another_region_first_is_the_same_run(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    ragcun(*launch)
    again = ragcun(*launch, "--region", "us-west-2", "--max-hours", "2")
    assert again.exit_code == 0, again.stderr
    assert "already exists" in again.stderr
    assert "It keeps the options that it was launched with: --max-hours 24." in again.stderr


def test_a_role_that_ec2_does_not_know_yet_is_waited_for(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another token each time: the same one would bring the same refusal again."""
    monkeypatch.setattr(transient, "SECONDS_TO_SETTLE", 10.0)
    unknown = {
        "ErrorCode": "InvalidParameterValue",
        "ErrorMessage": "Invalid IAM Instance Profile name ragcun-isotropy",
    }
    answers = iter([{"FleetId": "fleet-1", "Errors": [unknown], "Instances": []}] * 2)
    account.answers["CreateFleet"] = lambda asked: next(answers, None)
    refusals = iter([refused("ValidationException", "CreateSchedule", 400, "must allow AWS to assume the role")])
    account.before = lambda service, operation: next(refusals, None) if operation == "CreateSchedule" else None
    done = ragcun(*launch)
    assert done.exit_code == 0, done.stderr
    tokens = [request["ClientToken"] for request in account.requests("CreateFleet")]
    assert len(set(tokens)) == len(tokens) == 3
    assert len(account.requests("CreateSchedule")) == 2


def test_a_refusal_that_is_no_lack_of_machines_ends_the_launch(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    account.answers["CreateFleet"] = lambda asked: no_capacity("InvalidParameterCombination")
    done = ragcun(*launch, "--region", "us-east-1,us-west-2")
    assert done.exit_code == 4
    assert "InvalidParameterCombination" in said(done)
    assert len(account.requests("CreateFleet")) == 1
    assert leftovers(account) == set()


def test_what_cannot_be_launched_is_not_asked_about(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.quota = 0
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    done = ragcun(*launch[:-1])
    refuses(done, 4, "allows 0 vCPUs; 4 are needed")
    assert "[y/N]" not in done.stderr
    assert leftovers(account) == set()


def test_links_that_leave_the_checkout_are_not_packed(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, tmp_path: Path
) -> None:
    folder, secret = tmp_path / "mine", tmp_path / "credentials"
    secret.write_text("a secret\n")
    subprocess.run(["cp", "-r", str(launch[7]), str(folder)], check=True)
    (folder / "recipes").mkdir()
    (folder / "recipes/inside.yaml").symlink_to("../README.md")
    (folder / "recipes/mine.yaml").symlink_to(secret)
    commit(folder)
    launch[7] = folder
    refuses(ragcun(*launch), 2, "recipes/mine.yaml", "a link leads it outside")
    assert leftovers(account) == set()
    (folder / "recipes/mine.yaml").unlink()
    commit(folder)
    assert ragcun(*launch).exit_code == 0


def test_a_checkouts_configuration_runs_no_program(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, tmp_path: Path
) -> None:
    folder, program = tmp_path / "mine", tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    subprocess.run(["cp", "-r", str(launch[7]), str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "config", "core.fsmonitor", str(program)], check=True)
    launch[7] = folder
    assert ragcun(*launch).exit_code == 0
    assert not (tmp_path / "ran").exists()


def test_a_role_of_somebody_elses_making_is_not_used(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    iam = boto3.client("iam", region_name=HOME)
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    iam.create_role(RoleName="ragcun-isotropy", Path="/ragcun/", AssumeRolePolicyDocument=json.dumps(trust))
    done = ragcun(*launch)
    assert done.exit_code == 2
    assert "role ragcun-isotropy: the account has one of this name, but with another trust policy" in said(done)


def test_a_group_that_somebody_opened_is_not_used(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    assert ragcun(*launch).exit_code == 0
    say(RunRecord(account.aws(), ACCOUNT, BUCKET, HOME, "isotropy"), state="interrupted")
    end_machines()
    ec2 = boto3.client("ec2", region_name=HOME)
    (group,) = [each for each in ec2.describe_security_groups()["SecurityGroups"] if each["GroupName"] != "default"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[rule])
    done = ragcun("aws", "launch", "--run", "isotropy", "--resume", "--yes")
    assert done.exit_code == 2
    assert "somebody has opened it to addresses" in said(done)
    assert "machine us-east-1" not in leftovers(account)


def test_a_group_that_ec2_does_not_list_yet_is_waited_for(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer was lost, boto3 asked again, and EC2 said that it is there, but does not list it."""
    monkeypatch.setattr(transient, "SECONDS_TO_SETTLE", 5.0)
    ec2 = boto3.client("ec2", region_name=HOME)
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": "ragcun:run", "Value": "isotropy"}]}]
    made = ec2.create_security_group(GroupName="ragcun-isotropy", Description="x", VpcId=vpc, TagSpecifications=tags)
    looks = iter([{"SecurityGroups": []}] * 2)
    account.answers["DescribeSecurityGroups"] = lambda asked: next(looks, None)
    assert ragcun(*launch).exit_code == 0
    (template,) = account.requests("CreateLaunchTemplate")
    assert template["LaunchTemplateData"]["NetworkInterfaces"][0]["Groups"] == [made["GroupId"]]


def test_a_group_of_this_name_without_the_tag_is_not_used(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    ec2 = boto3.client("ec2", region_name=HOME)
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    ec2.create_security_group(GroupName="ragcun-isotropy", Description="x", VpcId=vpc)
    done = ragcun(*launch)
    assert done.exit_code == 2
    assert "is there without the run's tag" in said(done)


def test_user_data_keeps_every_sign_of_its_settings(cloud: Cloud, checkout: Path) -> None:
    """Nothing in a setting is a command of the shell's."""
    evil = "'\"$(touch /tmp/ragcun-evil)`id`\n; true"
    plan = plan_for(cloud, instance="g5.xlarge")
    attempt = Attempt(1, "", "", (), None, now().isoformat(), now().isoformat())
    making = Making(cloud.aws(), plan, attempt, evil)
    script = build_user_data(making).split("export HOME")[0]
    echo = script.replace("shutdown -h", "true") + 'printf %s "$RAGCUN_CODE"'
    done = subprocess.run(["bash", "-c", echo], capture_output=True, text=True, check=True)
    assert done.stdout == evil
    assert not Path("/tmp/ragcun-evil").exists()


def test_without_the_boundary_nothing_is_made(account: Cloud, launch: list[str | Path], ragcun: RunCommand) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:policy/ragcun-boundary"
    iam = boto3.client("iam", region_name=HOME)
    version = iam.create_policy_version(
        PolicyArn=arn,
        PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        ),
        SetAsDefault=True,
    )
    assert version
    assert (
        "differs from what `ragcun aws policy --boundary --account 123456789012` prints"
        in ragcun(*launch, "--dry-run").stdout
    )
    account.before = lambda service, operation: refused("AccessDenied", operation) if operation == "GetPolicy" else None
    assert "the permissions boundary could not be looked at" in ragcun(*launch, "--dry-run").stdout
    account.before = lambda service, operation: None
    iam.delete_policy_version(PolicyArn=arn, VersionId="v1")
    iam.delete_policy(PolicyArn=arn)
    done = ragcun(*launch)
    refuses_text = said(done)
    assert done.exit_code == 4
    for expected in ("no policy ragcun-boundary", "ragcun aws policy --boundary --account 123456789012", "section 2"):
        assert expected in refuses_text
    assert leftovers(account) == set()


def test_a_machine_elsewhere_has_the_names_of_its_partition(cloud: Cloud) -> None:
    assert partition_of("us-gov-west-1") == "aws-us-gov"
    assert partition_of("cn-north-1") == "aws-cn"
    assert partition_of("eu-west-3") == "aws"
    aws = Aws(cloud.session("cn-northwest-1"))
    assert aws.partition == "aws-cn"
    assert "amazonaws.com.cn" in aws.client("iam", "global").meta.endpoint_url
