"""Machines are ended, whatever the records, EC2's lists or a refusal say; and what ends them stays until then."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from ragcun_cli.aws import kept, runs
from ragcun_cli.aws.calls import AwsError
from ragcun_cli.aws.launch_record import now
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.aws.resources import machines
from tests.aws.account_contents import leftovers
from tests.aws.bucket_writes import put, rewrite
from tests.aws.cloud import ACCOUNT, HOME, Cloud, refused
from tests.aws.command_answers import no_capacity, refuses, said
from tests.aws.every_command import BUCKET, end_machines, make_older, say
from tests.aws.launch_builders import launch_for
from tests.conftest import RunCommand


def test_terminate_finds_parts_whose_objects_are_gone(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    store = launched.store()
    store.delete(store.keys(""))
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()
    refuses(ragcun("aws", "terminate", "isotropy", "--yes"), 2, "there is no run of this name")


def test_terminate_ends_the_machine_although_the_record_cannot_be_written(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    account.before = lambda service, operation: refused("AccessDenied", operation) if operation == "PutObject" else None
    done = ragcun("aws", "terminate", "isotropy", "--yes")
    account.before = lambda service, operation: None
    assert "machine us-east-1" not in leftovers(account), done.stderr


def test_machines_that_cannot_be_ended_keep_what_ends_them(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    """Their schedule, and the role with which it ends them."""
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    account.before = lambda service, operation: (
        refused("UnauthorizedOperation", operation) if operation == "TerminateInstances" else None
    )
    for command in (("terminate", "isotropy", "--yes"), ("gc", "--delete", "--all", "--yes")):
        done = ragcun("aws", *command)
        assert done.exit_code == 4
        assert "a machine that could not be ended may need it" in said(done)
        assert {"machine us-east-1", "schedule us-east-1", "role ragcun-isotropy-deadline", "instance profile"} <= (
            leftovers(account)
        )
    account.before = lambda service, operation: None
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()


def test_a_launch_whose_machine_cannot_be_ended_keeps_what_ends_it(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    looks = 0

    def after_the_machine(service: str, operation: str) -> Exception | None:
        nonlocal looks
        looks += operation == "CreateSchedule"
        fails = operation == "TerminateInstances" or (looks and operation == "DescribeInstances")
        return refused("UnauthorizedOperation", operation) if fails else None

    account.before = after_the_machine
    done = ragcun(*launch)
    account.before = lambda service, operation: None
    assert done.exit_code == 4
    assert "schedule ragcun-isotropy" in said(done)
    assert {"machine us-east-1", "schedule us-east-1", "role ragcun-isotropy-deadline"} <= leftovers(account)


def test_machines_are_ended_wherever_they_are(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    """The record names another region than the machine's."""
    kept.forget(ACCOUNT, BUCKET, "isotropy")
    rewrite(
        launched,
        lambda launch: (
            launch["wishes"].update(regions=["us-west-2"]),
            launch["attempts"][0].update(region="us-west-2"),
        ),
    )
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()


@pytest.mark.parametrize("by", ["launch", "terminate"])
def test_a_machine_that_ec2_does_not_list_yet_is_ended_by_its_id(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    account.answers["DescribeInstances"] = lambda asked: {"Reservations": []}
    if by == "launch":
        account.before = lambda service, operation: (
            refused("AccessDenied", operation) if operation == "CreateSchedule" else None
        )
        assert ragcun(*launch).exit_code == 4
        account.before = lambda service, operation: None
    else:
        monkeypatch.setattr(runs, "SECONDS_TO_SHOW", 300.0)
        assert ragcun(*launch).exit_code == 0
        assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    del account.answers["DescribeInstances"]
    assert leftovers(account) == set()


def test_terminate_needs_no_object_of_the_run(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    launched.store().delete(["launch.json"])
    put(launched, "launch.json.x", b"{}")
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) <= {"objects"}


def test_a_bucket_that_does_not_answer_is_waited_for_and_ends_no_terminate(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    account.answers["DescribeRegions"] = lambda asked: {"Regions": [{"RegionName": HOME}]}
    refusals = iter([refused("SlowDown", "ListObjectsV2", 503)])
    looks = 0

    def once(service: str, operation: str) -> Exception | None:
        nonlocal looks
        looks += operation == "ListBuckets"
        return next(refusals, None) if operation == "ListObjectsV2" and looks > 1 else None

    say(launched, state="finished")
    end_machines()
    account.before = once
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 0, done.stderr
    assert "Looking again" in done.stderr
    account.before = lambda service, operation: (
        refused("SlowDown", operation, 503) if operation == "ListObjectsV2" else None
    )
    done = ragcun("aws", "terminate", "isotropy", "--yes")
    assert "Traceback" not in done.stderr
    account.before = lambda service, operation: None
    assert leftovers(account) <= {"objects"}


def test_a_machine_that_says_it_is_over_and_goes_on_is_ended(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    say(launched, state="finished")
    done = ragcun("aws", "watch", "isotropy")
    assert done.exit_code == 0, done.stderr
    assert "finished, but its machine has not shut down: ending it" in done.stderr
    assert "machine us-east-1" not in leftovers(account)


def test_a_machine_that_outlived_its_timers_is_ended(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    make_older(launched, hours=30, end=(now() - timedelta(hours=6)).isoformat())
    say(launched, state="running")
    done = ragcun("aws", "watch", "isotropy")
    assert "its machine has outlived its deadline: ending it" in done.stderr
    assert "machine us-east-1" not in leftovers(account)
    assert done.exit_code == 1


def test_ctrl_c_while_a_region_is_cleaned_up_starts_nothing_in_the_next(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    answers = iter([no_capacity("InsufficientInstanceCapacity")])
    account.answers["CreateFleet"] = lambda asked: next(answers, None)
    account.before = lambda service, operation: KeyboardInterrupt() if operation == "DeleteLaunchTemplate" else None
    done = ragcun(*launch, "--region", "us-east-1,us-west-2")
    account.before = lambda service, operation: None
    assert done.exit_code == 130
    assert len(account.requests("CreateFleet")) == 1
    assert "machine us-west-2" not in leftovers(account)


def test_a_machine_left_in_one_region_stops_the_search_in_others(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand
) -> None:
    """A fleet gave one of two nodes, and it cannot be ended."""
    answers = iter([{"FleetId": "f", "Errors": [], "Instances": [{"InstanceIds": ["i-0123456789abcdef0"]}]}])
    account.answers["CreateFleet"] = lambda asked: next(answers, None)
    account.before = lambda service, operation: (
        refused("UnauthorizedOperation", operation) if operation == "TerminateInstances" else None
    )
    done = ragcun(*launch, "--nodes", "2", "--region", "us-east-1,us-west-2")
    account.before = lambda service, operation: None
    assert done.exit_code == 4
    assert len(account.requests("CreateFleet")) == 1
    assert "machines that were started there could not be ended" in said(done)
    assert "machine ragcun-isotropy in us-east-1" in said(done)


def test_a_machine_without_its_tag_is_ended_by_its_id(
    account: Cloud, launched: RunRecord, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2 = boto3.client("ec2", region_name=HOME)
    launch = launched.launch()
    assert launch is not None
    ids = list(launch.attempts[0].instances)
    ec2.delete_tags(Resources=ids, Tags=[{"Key": "ragcun:run"}])
    profile = {"Arn": f"arn:aws:iam::{ACCOUNT}:instance-profile/ragcun/ragcun-isotropy", "Id": "x"}
    real = account.aws().pages

    def with_profile(service: str, operation: str, *rest: Any, region: str, key: str) -> Any:
        """moto does not tell a machine's profile."""
        for entry in real(service, operation, *rest, region=region, key=key):
            for each in entry["Instances"] if key == "Reservations" else ():
                each |= {"IamInstanceProfile": profile} if each["InstanceId"] in ids else {}
            yield entry

    monkeypatch.setattr(account.aws(), "pages", with_profile)
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()


def test_terminate_ends_no_other_machine_that_a_record_names(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    ec2 = boto3.client("ec2", region_name=HOME)
    image = ec2.describe_images()["Images"][0]["ImageId"]
    yours = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    rewrite(launched, lambda launch: launch["attempts"][0]["instances"].append(yours))
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    (found,) = ec2.describe_instances(InstanceIds=[yours])["Reservations"][0]["Instances"]
    assert found["State"]["Name"] == "running"
    for sent in account.requests("TerminateInstances"):
        assert yours not in sent["InstanceIds"]


def test_a_machine_that_appears_late_is_ended(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    """EC2 knew neither its tag nor its id at first, then lists it."""
    monkeypatch.setattr(machines, "SECONDS_TO_END", 5.0)
    _, attempt = launch_for(cloud, checkout)
    looks = iter([{"Reservations": []}] * 4)
    cloud.answers["DescribeInstances"] = lambda asked: next(looks, None)
    unknown = iter([refused("InvalidInstanceID.NotFound", "TerminateInstances", 400)])
    cloud.before = lambda service, operation: next(unknown, None) if operation == "TerminateInstances" else None
    ended = machines.end_machines(cloud.aws(), "isotropy", HOME, unlisted=attempt.instances, patience=5.0)
    assert ended == list(attempt.instances)
    del cloud.answers["DescribeInstances"]
    assert "machine us-east-1" not in leftovers(cloud)


def test_a_bucket_that_is_denied_hides_neither_runs_nor_machines(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    boto3.client("s3", region_name=HOME).create_bucket(Bucket=f"ragcun-{ACCOUNT}-other")

    def denied(service: str, operation: str) -> Exception | None:
        is_other = operation == "HeadBucket" and account.sent[-1][2]["Bucket"].endswith("other")
        return refused("403", operation) if is_other else None

    account.before = denied
    assert ragcun("aws", "status", "isotropy").exit_code == 0
    account.before = lambda service, operation: refused("403", operation) if operation == "HeadBucket" else None
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    account.before = lambda service, operation: None
    assert leftovers(account) == {"objects"}


def test_a_machine_without_any_part_is_still_found(account: Cloud, launched: RunRecord, ragcun: RunCommand) -> None:
    store = launched.store()
    store.delete(store.keys(""))
    iam = boto3.client("iam", region_name=HOME)
    both = {"InstanceProfileName": "ragcun-isotropy", "RoleName": "ragcun-isotropy"}
    iam.remove_role_from_instance_profile(**both)
    iam.delete_instance_profile(InstanceProfileName="ragcun-isotropy")
    assert ragcun("aws", "terminate", "isotropy", "--yes").exit_code == 0
    assert leftovers(account) == set()


def test_a_region_that_is_forbidden_does_not_stop_terminate(
    account: Cloud, launched: RunRecord, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An organisation's policy denies it for good, and the record cannot be used."""
    put(launched, "launch.json", b"{")
    kept.forget(ACCOUNT, BUCKET, "isotropy")
    real = account.aws().pages

    def pages(service: str, operation: str, *rest: Any, region: str, key: str) -> Any:
        if region == "us-west-2":
            raise AwsError("denied by an organisation's policy", "", "UnauthorizedOperation")
        return real(service, operation, *rest, region=region, key=key)

    monkeypatch.setattr(account.aws(), "pages", pages)
    done = ragcun("aws", "terminate", "isotropy", "--yes")
    assert done.exit_code == 0, done.stderr
    assert "could not be looked for in us-west-2" in said(done)
    assert leftovers(account) == set()
    assert ragcun("aws", "gc", "--delete", "--yes", "--region", HOME).exit_code == 0


def test_an_attempt_whose_machine_runs_on_stays_recorded(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    say(launched, state="interrupted")
    end_machines()
    account.before = lambda service, operation: (
        refused("AccessDenied", operation) if operation in ("CreateSchedule", "TerminateInstances") else None
    )
    done = ragcun("aws", "launch", "--run", "isotropy", "--resume", "--yes")
    account.before = lambda service, operation: None
    assert done.exit_code == 4
    assert "ragcun aws terminate isotropy --keep-bucket" in said(done)
    launch = launched.launch()
    assert launch is not None
    assert len(launch.attempts) == 2
    assert "machine us-east-1" in leftovers(account)


def test_a_relaunch_that_fails_at_its_last_step_is_taken_back(
    account: Cloud, launched: RunRecord, ragcun: RunCommand
) -> None:
    """Its machines were recorded, but the answer was lost."""
    say(launched, state="interrupted")
    end_machines()
    before = launched.launch()
    writes = 0

    def lost(service: str, operation: str) -> BaseException | None:
        nonlocal writes
        writes += operation == "PutObject"
        return KeyboardInterrupt() if writes == 2 and operation == "PutObject" else None

    account.after = lost
    done = ragcun("aws", "launch", "--run", "isotropy", "--resume", "--yes")
    account.after = lambda service, operation: None
    assert done.exit_code == 130
    assert "These remain" not in done.stderr
    assert launched.launch() == before
    assert "machine us-east-1" not in leftovers(account)
    assert ragcun("aws", "launch", "--run", "isotropy", "--resume", "--yes").exit_code == 0
