"""What a plan says: prices, quotas, images, costs and obstacles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import boto3
import pytest

from ragcun_cli.aws.instances import KNOWN, InstanceType
from ragcun_cli.aws.job import make_job
from ragcun_cli.aws.prices import TABLE_SOURCE, disk_dollars
from ragcun_cli.aws.quota import quota_of
from ragcun_cli.errors import UsageError
from ragcun_cli.recipe.estimates import SECONDS_TO_START
from ragcun_cli.recipe.loading import load_recipe
from tests.aws.cloud import Cloud, refused
from tests.aws.launch_builders import plan_for
from tests.conftest import RunCommand
from tests.tiny_models import write_collection


@pytest.mark.parametrize(
    ("instance", "on_demand", "code"),
    [
        ("p4d.24xlarge", True, "L-417A185B"), ("p4d.24xlarge", False, "L-7212CCBC"),
        ("p4de.24xlarge", False, "L-7212CCBC"), ("p5.4xlarge", False, "L-C4BD4855"),
        ("p5en.48xlarge", False, "L-C4BD4855"), ("p5.48xlarge", True, "L-417A185B"),
        ("g5.xlarge", True, "L-DB2E81BA"), ("g4dn.xlarge", False, "L-3819A6DF"), ("g6e.12xlarge", False, "L-3819A6DF"),
        ("c5.xlarge", True, "L-1216C47A"), ("c5.xlarge", False, "L-34B43A08"),
        ("p6-b200.48xlarge", False, None), ("inf2.xlarge", True, None),
    ],
)  # fmt: skip
def test_quota_codes(instance: str, on_demand: bool, code: str | None) -> None:
    assert quota_of(InstanceType(instance, "", 0, 0, 4, 16), on_demand)[0] == code


def test_prices_are_asked_and_the_table_says_that_it_is_one(cloud: Cloud) -> None:
    region = plan_for(cloud).regions[0]
    assert (region.on_demand.dollars, region.on_demand.source) == (21.957642, "AWS's current price list")
    assert all(zone.spot.source == "AWS, now" for zone in region.zones)
    assert len(region.zones) > 1
    cloud.before = lambda service, operation: refused("AccessDenied", operation) if service == "pricing" else None
    offline = plan_for(cloud).regions[0].on_demand
    assert (offline.dollars, offline.source) == (21.957642, TABLE_SOURCE)


def test_the_image_is_found_by_either_spelling_or_by_name(cloud: Cloud) -> None:
    by_parameter = plan_for(cloud).regions[0].image
    assert by_parameter is not None
    assert (
        by_parameter.found == "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-ubuntu-24.04/latest/ami-id"
    )
    assert by_parameter.root in ("/dev/xvda", "/dev/sda1")

    def no_parameter(asked: dict[str, str]) -> None:
        raise refused("ParameterNotFound", "GetParameter", 400)

    older = {"ImageId": "ami-1", "Name": "a", "RootDeviceName": "/dev/sda1", "CreationDate": "2026-01-01"}
    newer = {**older, "ImageId": "ami-2", "CreationDate": "2026-09-01"}
    cloud.answers["GetParameter"] = no_parameter
    cloud.answers["DescribeImages"] = lambda asked: {"Images": [newer, older]}
    by_name = plan_for(cloud).regions[0].image
    assert by_name is not None
    assert (by_name.id, by_name.found) == ("ami-2", "the newest by name")
    cloud.answers["DescribeImages"] = lambda asked: {"Images": []}
    assert "no AWS Deep Learning Base image" in plan_for(cloud).obstacles()[0]


def test_a_quota_that_is_too_small_names_code_and_page(cloud: Cloud) -> None:
    cloud.quota = 64
    obstacles = plan_for(cloud).obstacles()
    assert "(L-7212CCBC) allows 64 vCPUs; 96 are needed" in obstacles[0]
    assert "https://us-east-1.console.aws.amazon.com/servicequotas/home/services/ec2/quotas/L-7212CCBC" in obstacles[0]
    assert len(obstacles) == 2  # both regions


def test_a_region_with_quota_is_enough(cloud: Cloud) -> None:
    codes = iter([0.0, 500.0])
    cloud.answers["GetServiceQuota"] = lambda asked: {"Quota": {"Value": next(codes)}}
    plan = plan_for(cloud)
    assert plan.obstacles() == []
    assert [region.name for region in plan.usable()] == ["us-west-2"]


def test_running_machines_count_towards_the_quota(cloud: Cloud) -> None:
    running = {
        "InstanceType": "p4d.24xlarge",
        "InstanceLifecycle": "spot",
        "CpuOptions": {"CoreCount": 48, "ThreadsPerCore": 2},
    }
    others = [{**running, "InstanceLifecycle": None}, {**running, "InstanceType": "g5.xlarge"}]
    cloud.answers["DescribeInstances"] = lambda asked: {"Reservations": [{"Instances": [running, *others]}]}
    cloud.quota = 100
    quota = plan_for(cloud).regions[0].quota
    assert (quota.needed, quota.held, quota.used, quota.suffices) == (96, 100, 96, False)


def test_what_aws_does_not_say_is_said(cloud: Cloud) -> None:
    cloud.before = lambda service, operation: (
        refused("AccessDeniedException", operation) if service == "service-quotas" else None
    )
    cloud.answers["DescribeSpotPriceHistory"] = lambda asked: {"SpotPriceHistory": []}
    plan = plan_for(cloud)
    assert plan.obstacles() == []
    warnings = "\n".join(plan.warnings())
    assert "does not say how large the quota" in warnings
    assert "there may be no spot machines" in warnings
    assert not plan.knows_spot_price()
    hours = min(plan.hours() or 0, plan.wishes.max_hours)
    assert plan.expected_cost() == pytest.approx(hours * (21.957642 + disk_dollars(plan.disk) + 0.005))


def test_no_default_vpc_names_the_command_that_makes_one(cloud: Cloud) -> None:
    for region in ("us-east-1", "us-west-2"):
        ec2 = boto3.client("ec2", region_name=region)
        for subnet in ec2.describe_subnets()["Subnets"]:
            ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    assert "create-default-subnet --availability-zone us-east-1a" in plan_for(cloud).obstacles()[0]
    cloud.answers["DescribeVpcs"] = lambda asked: {"Vpcs": []}
    assert "aws ec2 create-default-vpc --region us-east-1" in plan_for(cloud).obstacles()[0]


def test_the_most_it_can_cost_is_compared_with_max_cost(cloud: Cloud) -> None:
    dear = plan_for(cloud, max_hours=10, max_cost=200.0)
    assert dear.maximum_cost() == pytest.approx(10.25 * (21.957642 + disk_dollars(dear.disk) + 0.005))
    assert (
        "--max-cost 200: the most that 10 hours can cost is $225.82; --max-hours 8.8 would fit" in dear.obstacles()[0]
    )
    assert plan_for(cloud, max_hours=8.8, max_cost=200.0).obstacles() == []


def test_two_nodes_cost_twice(cloud: Cloud) -> None:
    one, two = plan_for(cloud), plan_for(cloud, nodes=2)
    assert two.maximum_cost() == pytest.approx(2 * (one.maximum_cost() or 0))
    assert two.regions[0].quota.needed == 2 * one.regions[0].quota.needed


@pytest.mark.parametrize("instance", ["g4dn.xlarge", "g5.xlarge", "p4d.24xlarge", "p5.4xlarge"])
def test_estimates_of_the_publication_arms(ragcun: RunCommand, instance: str) -> None:
    done = ragcun("aws", "plan", "--offline", "--instance", instance, "--json")
    plan = json.loads(done.stdout)
    parts = plan["expected_seconds"]
    assert plan["recipes"] == ["baseline", "isotropy", "frozen"]
    assert plan["expected_hours"] == pytest.approx(sum(parts.values()) / 3600)
    assert set(parts) == {"installing", "downloads", "unpacking", "training", "evaluation", "search"}
    assert any("TFLOP/s" in basis for basis in plan["basis"])
    one = plan["one_training"]["isotropy"]
    assert 0 < one["seconds"] <= parts["training"]  # side by side where there are several GPUs
    assert one["dollars"] > 0
    assert one["disk_bytes"] > 3 * 110e6 * 4
    # 94,299 steps of 16 triples, which take a device at least 60 ms each.
    assert parts["training"] > 94_000 * 0.06


def test_a_measured_speed_replaces_the_calculation(ragcun: RunCommand) -> None:
    common = ("aws", "plan", "--offline", "--instance", "g5.xlarge", "--recipe", "isotropy", "--json")
    plan = json.loads(ragcun(*common, "--triples-per-second", "100").stdout)
    steps = 502_939 // 16 * 16 * 3 / 100
    beside = plan["expected_seconds"]["training"] - steps  # start, tokenising, saving
    assert SECONDS_TO_START < beside < 600
    assert "100 triples/s, as given" in plan["basis"]


def test_several_trainings_are_side_by_side_where_there_are_gpus(cloud: Cloud) -> None:
    eight = plan_for(cloud, ("baseline", "isotropy", "frozen")).estimate
    one = plan_for(cloud, ("baseline", "isotropy", "frozen"), instance="g5.xlarge").estimate
    assert (eight.parts["training"] or 0) * 2 < (one.parts["training"] or 0)


def test_data_of_the_users_go_with_the_run(tmp_path: Path) -> None:
    triples = tmp_path / "mine.jsonl"
    triples.write_text('{"query": "q", "positive": "p"}\n')
    collection = tmp_path / "mine"
    (collection / "qrels").mkdir(parents=True)
    (collection / "corpus.jsonl").write_text("{}\n")
    recipe = load_recipe("isotropy", [f"data.train='{triples}'", f"data.dev='{collection}'"])
    job = make_job([recipe], [0, 1], f"scifact,{collection}", "bf16", "s3://b/runs/r/checkpoints")
    (rewritten,) = job.recipes
    keys = {each.key: each.path for each in job.inputs}
    assert keys[rewritten.data.train] == triples
    assert keys[str(rewritten.data.dev)] == collection
    assert rewritten.data.train.startswith("inputs/")
    assert job.datasets == f"scifact,{rewritten.data.dev}"
    assert job.downloads == ("scifact",)
    assert (rewritten.backup, rewritten.output_dir) == ("s3://b/runs/r/checkpoints", "checkpoints/isotropy")
    assert job.runs == 2
    assert job.triples == {"isotropy": 1}


def test_a_name_in_the_data_folder_goes_with_the_run_and_is_counted(tmp_path: Path) -> None:
    write_collection(tmp_path / "data" / "mine", 8, split="train")
    shutil.make_archive(str(tmp_path / "data" / "packed"), "zip", tmp_path / "data" / "mine")
    counts = []
    for name in ("mine", "packed"):
        recipe = load_recipe("isotropy", [f"data.train={name}", "data.dev=null", f"data.folder={tmp_path / 'data'}"])
        job = make_job([recipe], [], name, "float32", "s3://b")
        assert job.recipes[0].data.train.startswith("inputs/")
        counts.append(job.triples["isotropy"])
    assert counts == [8, 8]


def test_data_that_nobody_has_are_refused(tmp_path: Path) -> None:
    recipe = load_recipe("isotropy", ["data.train=nowhere.jsonl"])
    with pytest.raises(UsageError, match=r"data\.train: nowhere\.jsonl is neither here nor a name"):
        make_job([recipe], [], None, "float32", "s3://b")
    with pytest.raises(UsageError, match=r"--datasets: scifat is neither here"):
        make_job([load_recipe("isotropy")], [], "scifat", "float32", "s3://b")
    with pytest.raises(UsageError, match=r"--datasets: robust04 is licensed"):
        make_job([load_recipe("isotropy")], [], "robust04", "float32", "s3://b")
    with pytest.raises(UsageError, match="keys are never passed to a machine"):
        make_job([load_recipe("isotropy", ["trackers=[wandb]"])], [], None, "float32", "s3://b")


def test_the_table_covers_what_the_plan_offers(ragcun: RunCommand) -> None:
    for name in KNOWN:
        assert ragcun("aws", "plan", "--offline", "--instance", name).exit_code == 0
