"""What a run costs and what would cost less: disks, idle GPUs, machines compared, staged downloads, waiting."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from ragcun_cli.aws import waiting
from ragcun_cli.aws.compare import compare
from ragcun_cli.aws.estimates import DiskPlan, estimate_job
from ragcun_cli.aws.instances import KNOWN, InstanceType, capacity_blocks_note
from ragcun_cli.aws.job import files_of_download, make_job
from ragcun_cli.aws.launch_record import as_time
from ragcun_cli.aws.machine import staging
from ragcun_cli.aws.machine.context import MachineContext
from ragcun_cli.aws.plan import latest_end
from ragcun_cli.aws.prices import disk_dollars
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.recipe.loading import load_recipe
from tests.aws.account_contents import leftovers
from tests.aws.cloud import ACCOUNT, HOME, Cloud, refused
from tests.aws.command_answers import no_capacity, refuses, said
from tests.aws.every_command import BUCKET, end_machines, say
from tests.aws.iam_evaluation import allows
from tests.aws.launch_builders import launch_for, plan_for
from tests.aws.machine.contexts import context_of
from tests.conftest import RunCommand

ARMS = ("baseline", "isotropy", "frozen")


def job_of(*names: str, datasets: str = "public", seeds: tuple[int, ...] = ()) -> Any:
    return make_job([load_recipe(name) for name in names], seeds, datasets, "float32", "s3://b/c")


def parts_of(datasets: str, *names: str, instance: str = "p4d.24xlarge") -> dict[str, float]:
    """Seconds by part; all are known for these machines."""
    parts = estimate_job(job_of(*names, datasets=datasets), KNOWN[instance].machine(1), None).parts
    return {name: seconds for name, seconds in parts.items() if seconds is not None}


def test_passages_of_two_datasets_are_encoded_once() -> None:
    both = parts_of("fever,climate-fever", "isotropy")
    one = parts_of("fever", "isotropy")
    assert both["evaluation"] == pytest.approx(one["evaluation"], rel=1e-4)
    assert both["search"] > one["search"]  # each dataset has queries of its own
    assert both["downloads"] > one["downloads"]


def test_a_frozen_arm_uses_the_untouched_encoders_pass() -> None:
    assert parts_of("nq", "frozen")["evaluation"] * 2 == pytest.approx(parts_of("nq", "isotropy")["evaluation"])


def test_tokenising_counts_where_it_takes_longer_than_encoding() -> None:
    """In half precision an H100 is faster than eight cores; two models encode, one trained and one untouched."""
    job = make_job([load_recipe("isotropy")], [], "nq", "bf16", "s3://b/c")
    estimate = estimate_job(job, KNOWN["p5.4xlarge"].machine(1), None)
    tokens = 2_681_468 * (78.9 * 1.35 + 2)
    assert estimate.parts["evaluation"] == pytest.approx(2 * tokens / (150e3 * 8))
    assert any("tokenising: 150,000 tokens/s on each of 8 cores" in each for each in estimate.basis)


def test_search_is_two_operations_a_dimension_and_the_vectors_written_and_read() -> None:
    """NQ: 2,681,468 passages and 3,452 queries; an A10G has 31.5 TFLOP/s, of which a fifth is assumed."""
    one_pass = 2 * 512 * 2_681_468 * 3_452 / (0.2 * 31.5e12) + 2 * 2_681_468 * 512 * 4 / 200e6
    assert parts_of("nq", "isotropy", instance="g5.xlarge")["search"] == pytest.approx(2 * one_pass, rel=1e-3)


def test_one_training_takes_all_gpus_and_several_one_each() -> None:
    one, four = (parts_of("nq", "isotropy", instance=name)["training"] for name in ("g5.xlarge", "g5.12xlarge"))
    assert four < one
    together = parts_of("nq", "isotropy", "baseline", instance="g5.12xlarge")["training"]
    assert together == pytest.approx(one, rel=0.05)


def test_the_basis_says_what_is_assumed_of_the_data() -> None:
    estimate = estimate_job(job_of("isotropy", datasets="nq"), KNOWN["g5.xlarge"].machine(1), None)
    said = "\n".join(estimate.basis)
    assert "unpacking: 60 MB/s of text (assumed)" in said
    assert "downloads: 3 of 3 files at 20 MB/s (assumed" in said
    staged = estimate_job(
        job_of("isotropy", datasets="nq"), KNOWN["g5.xlarge"].machine(1), None, staged=frozenset({"nq.zip"})
    )
    assert any("downloads: 2 of 3 files" in each for each in staged.basis)


def test_the_disk_holds_what_will_be_kept() -> None:
    """Three arms of 512 dimensions and the encoder's 768, for 19.6 million distinct passages, in float32."""
    disk = estimate_job(job_of(*ARMS), KNOWN["p4d.24xlarge"].machine(1), None).disk
    passages = 25_016_000 - 5_416_593
    assert disk.cache == pytest.approx(1.05 * passages * (3 * 512 + 768) * 4 / 2**30, rel=0.02)
    assert disk.total >= disk.cache + 100 + 39
    assert disk.total % 50 == 0
    chosen = estimate_job(job_of(*ARMS), KNOWN["p4d.24xlarge"].machine(1), None, disk=200).disk
    assert chosen.total == 200
    assert chosen.cache <= 200 - 100 - 39
    small = estimate_job(job_of("isotropy", datasets="scifact"), KNOWN["g5.xlarge"].machine(1), None).disk
    assert small.cache == 10
    assert estimate_job(job_of("isotropy", datasets="scifact"), KNOWN["g5.xlarge"].machine(1), None, disk=30).disk == (
        DiskPlan(30, 10)
    )


def test_the_machine_is_told_how_much_of_its_disk_is_cache(cloud: Cloud, checkout: Path) -> None:
    plan, attempt = launch_for(cloud, checkout)
    assert (attempt.cache_gib, attempt.gpus) == (plan.cache_gib, 8)
    (template,) = cloud.requests("CreateLaunchTemplate")
    assert template["LaunchTemplateData"]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == plan.disk


def test_a_disks_speed_is_paid_too() -> None:
    # 400 GiB, 375 MiB/s and 3,000 operations a second above what is included.
    assert disk_dollars(400) == pytest.approx((400 * 0.08 + 375 * 0.04 + 3000 * 0.005) / 730)


def test_at_most_is_to_the_minute(cloud: Cloud, checkout: Path) -> None:
    plan, attempt = launch_for(cloud, checkout)
    assert (as_time(latest_end(attempt)) - as_time(attempt.started)).total_seconds() == 10.25 * 3600
    (schedule,) = cloud.requests("CreateSchedule")
    assert schedule["ScheduleExpression"] == f"at({as_time(latest_end(attempt)):%Y-%m-%dT%H:%M:%S})"
    assert plan.maximum_cost() == pytest.approx(plan.cost_at(21.957642, 10.25))


def test_idle_gpus_are_said_with_their_price_and_their_use(cloud: Cloud) -> None:
    plan = plan_for(cloud, ARMS)
    (idle,) = [each for each in plan.warnings() if "idle" in each]
    assert idle.startswith("5 of 8 GPUs are idle while 3 train (")
    assert "of the cost" in idle
    assert "--seeds 0,1 trains 6 in the same time" in idle
    assert "--compare" in idle
    assert not [each for each in plan_for(cloud, ARMS, instance="g5.xlarge").warnings() if "idle" in each]
    assert not [each for each in plan_for(cloud, ("isotropy",)).warnings() if "idle" in each]


def test_machines_are_compared_the_cheapest_first(ragcun: RunCommand) -> None:
    done = ragcun("aws", "plan", "--compare", "--offline", "--max-hours", "60", "--json")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["instance"] for row in rows} == set(KNOWN)
    possible = [row for row in rows if not row["problem"]]
    prices = [min(each for each in (row["spot"], row["on_demand"]) if each is not None) for row in possible]
    assert prices == sorted(prices)
    assert rows[: len(possible)] == possible
    eight = next(row for row in rows if row["instance"] == "p4d.24xlarge")
    assert eight["idle"] == 5
    late = next(row for row in rows if row["instance"] == "c7i.xlarge")
    assert late["problem"] == "takes more than --max-hours 60"
    shown = ragcun("aws", "plan", "--compare", "--offline", "--max-hours", "60")
    assert f"Cheapest that finishes: {possible[0]['instance']}" in shown.stderr
    assert "idle GPUs" in shown.stdout
    none = ragcun("aws", "plan", "--compare", "--offline", "--max-hours", "0.5")
    assert "None of them finishes the job as asked" in none.stderr
    refuses(ragcun("aws", "plan", "--offline"), 2, "--instance is missing", "--compare")


def test_comparing_asks_aws_too(account: Cloud, ragcun: RunCommand) -> None:
    account.quota = 8
    rows = json.loads(ragcun("aws", "plan", "--compare", "--recipe", "isotropy", "--json").stdout)
    problems = {row["instance"]: row["problem"] for row in rows}
    assert "the quota" in problems["p4d.24xlarge"]
    assert problems["g5.xlarge"] == ""
    one = json.loads(ragcun("aws", "plan", "--compare", "--instance", "g5.xlarge", "--json").stdout)
    assert [row["instance"] for row in one] == ["g5.xlarge"]


def test_only_trainings_side_by_side_leave_gpus_idle(cloud: Cloud) -> None:
    idle = [compare([plan_for(cloud, names)])[0].idle for names in (("isotropy",), ("isotropy", "baseline"))]
    assert idle == [0, 6]


def test_what_is_unknown_is_compared_last() -> None:
    from ragcun_cli.aws.compare import Comparison

    dear = Comparison("a", "", 1.0, None, 9.0, 0, "")
    cheap = Comparison("b", "", 1.0, 3.0, 10.0, 0, "")
    unknown = Comparison("c", "", None, None, None, 0, "")
    assert sorted([dear, unknown, cheap], key=Comparison.least) == [cheap, dear, unknown]
    assert compare([]) == []


def test_capacity_blocks_are_refused_with_what_to_do(cloud: Cloud) -> None:
    types = boto3.client("ec2", region_name=HOME).describe_instance_types(InstanceTypes=["p5.48xlarge"])
    entry = {**types["InstanceTypes"][0], "SupportedUsageClasses": ["capacity-block"]}
    cloud.answers["DescribeInstanceTypes"] = lambda asked: {"InstanceTypes": [entry]}
    obstacle = plan_for(cloud, instance="p5.48xlarge").obstacles()[0]
    assert obstacle.startswith("--instance p5.48xlarge: AWS sells it capacity-block, not spot. AWS sells most")
    assert "take p4d.24xlarge" in obstacle
    del cloud.answers["DescribeInstanceTypes"]
    plan = plan_for(cloud, instance="p5.48xlarge")
    assert plan.obstacles() == []
    assert any("Capacity Blocks" in each for each in plan.warnings())
    assert capacity_blocks_note(KNOWN["p4d.24xlarge"]) == ""
    assert capacity_blocks_note(InstanceType("p6-b200.48xlarge", "B200", 8, 180, 192, 2048))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, _ in [*files_of_download("msmarco"), ("scifact.zip", 0), ("fiqa.zip", 0)]:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(name.encode())
    return tmp_path / "data"


def test_downloads_are_staged_once(account: Cloud, ragcun: RunCommand, data: Path) -> None:
    stage = ("aws", "stage", "--from", data, "--datasets", "scifact,msmarco")
    done = ragcun(*stage)
    assert done.exit_code == 0, done.stderr
    count = 1 + len(files_of_download("msmarco"))
    assert f"Copied {count} files to s3://{BUCKET}/datasets/" in said(done)
    assert "Copied 0 files" in said(ragcun(*stage))
    found = boto3.client("s3", region_name=HOME).list_objects_v2(Bucket=BUCKET)["Contents"]
    assert "datasets/scifact.zip" in {each["Key"] for each in found}
    assert leftovers(account) == {"objects"}
    nothing = ragcun("aws", "stage", "--instance", "c7i.xlarge", "--datasets", "scifact,msmarco", "--yes")
    assert "The bucket has all of them: nothing was started" in nothing.stderr
    refuses(ragcun(*stage[:-1], "nq"), 2, "nq.zip: not downloaded yet", "ragcun data download nq")
    refuses(ragcun(*stage[:-1], "scifat"), 2, "scifat")
    refuses(ragcun("aws", "stage"), 2, "give --from FOLDER or --instance TYPE")
    refuses(ragcun("aws", "stage", "--from", data / "none"), 2, "no such folder")
    block = account.requests("PutPublicAccessBlock")[-1]["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}


def test_a_cheap_machine_can_stage_too(account: Cloud, ragcun: RunCommand, checkout: Path) -> None:
    stage = ("aws", "stage", "--instance", "c7i.xlarge", "--datasets", "beir,msmarco", "--code", checkout, "--yes")
    done = ragcun(*stage)
    assert done.exit_code == 0, done.stderr
    assert "keeps        what it downloads in the bucket" in said(done) or "keeps" in done.stderr + done.stdout
    record = RunRecord(account.aws(), ACCOUNT, BUCKET, HOME, "stage")
    launched = record.launch()
    assert launched is not None
    assert (launched.recipes, launched.wishes.max_hours, len(launched.downloads)) == ({}, 12.0, 15)
    policy = json.loads(account.requests("PutRolePolicy")[0]["PolicyDocument"])
    assert allows(policy, "s3:PutObject", f"arn:aws:s3:::{BUCKET}/datasets/fever.zip")
    status = json.loads(ragcun("aws", "status", "stage", "--json").stdout)
    assert status["state"] == "starting"
    refuses(ragcun(*stage), 2, "--run stage: there is a run of this name; it is starting", "terminate stage")
    say(record, state="interrupted", stage="downloading")
    end_machines()
    assert ragcun("aws", "launch", "--run", "stage", "--resume", "--yes").exit_code == 0
    assert ragcun("aws", "terminate", "stage", "--yes").exit_code == 0
    assert leftovers(account) == set()


def test_the_staging_machine_copies_what_it_downloaded(
    cloud: Cloud, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch_for(cloud, checkout)
    record = RunRecord(cloud.aws(), ACCOUNT, BUCKET, HOME, "isotropy")
    context = context_of(record, tmp_path, downloads=("scifact",))
    monkeypatch.setattr(MachineContext, "read", lambda: context)
    with pytest.raises(SystemExit):
        staging.main()
    assert "scifact.zip: not downloaded yet" in capsys.readouterr().err
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scifact.zip").write_bytes(b"a zip")
    staging.main()
    found = boto3.client("s3", region_name=HOME).get_object(Bucket=BUCKET, Key="datasets/scifact.zip")
    assert found["Body"].read() == b"a zip"


def test_what_is_staged_is_no_longer_waited_for(account: Cloud, ragcun: RunCommand, data: Path) -> None:
    plan = ("aws", "plan", "--instance", "g5.xlarge", "--recipe", "isotropy", "--datasets", "scifact", "--json")
    before = json.loads(ragcun(*plan).stdout)
    assert any("`ragcun aws stage`" in each for each in before["basis"])
    ragcun("aws", "stage", "--from", data, "--datasets", "scifact,msmarco")
    after = json.loads(ragcun(*plan).stdout)
    assert after["expected_seconds"]["downloads"] == pytest.approx(before["expected_seconds"]["downloads"] / 10)
    assert not any("`ragcun aws stage`" in each for each in after["basis"])


def test_wait_tries_until_there_is_capacity(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MINUTES_BETWEEN_TRIES", 0.0001)
    answers = iter([no_capacity("InsufficientInstanceCapacity")] * 2)
    account.answers["CreateFleet"] = lambda asked: next(answers, None)
    done = ragcun(*launch, "--wait", "1h")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("Trying again") == 2
    assert "machine us-east-1" in leftovers(account)


def test_wait_ends_and_other_failures_are_not_waited_for(
    account: Cloud, launch: list[str | Path], ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 60.0, 3700.0])
    clock = SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda pause: None)
    monkeypatch.setattr(waiting, "time", clock)
    account.answers["CreateFleet"] = lambda asked: no_capacity("InsufficientInstanceCapacity")
    done = ragcun(*launch, "--wait", "1h")
    refuses_at_last = said(done)
    assert done.exit_code == 4
    assert "no g5.xlarge is available as spot" in refuses_at_last
    assert "--wait 6h" in refuses_at_last
    assert done.stderr.count("Trying again in 5 minutes") == 1
    monkeypatch.undo()
    del account.answers["CreateFleet"]
    account.before = lambda service, operation: (
        refused("AccessDenied", operation) if operation == "CreateRole" else None
    )
    assert "Trying again" not in ragcun(*launch, "--wait", "1h").stderr
    account.before = lambda service, operation: None
    assert leftovers(account) == set()
    refuses(ragcun(*launch, "--wait", "soon"), 2, "--wait soon: not a duration", "6h or 90m")
