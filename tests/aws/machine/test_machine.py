"""The machine's own script, from user data to the report: interrupted by a spot notice, gone on with by a second
machine, fetched. Real weights, real texts, real pip and AWS's own command line; the bucket is moto's.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from ragcun_cli.aws.code import archive_checkout
from ragcun_cli.aws.fetch import USUAL_PARTS, fetch_run
from ragcun_cli.aws.job import make_job
from ragcun_cli.aws.launch import launch_run
from ragcun_cli.aws.launch_record import LaunchRequest, MachineStatus
from ragcun_cli.aws.names import bucket_name, prefix_of
from ragcun_cli.aws.planning import make_plan
from ragcun_cli.aws.runs import FoundRun, require_run
from ragcun_cli.aws.watch import log_lines, relaunch
from ragcun_cli.recipe.loading import load_recipe
from tests.aws.cloud import ACCOUNT, HOME, Cloud, make_boundary
from tests.aws.launch_builders import launch_for, plan_for
from tests.aws.simulated_machine import Computer
from tests.conftest import REPOSITORY, RunCommand

pytestmark = pytest.mark.processes

RUN = "demo"
STEPS = 12
PATIENCE = 240.0


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """AWS as a server of this machine, for other processes too."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a failure's reason drowns in requests
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    requests.post(f"http://{host}:{port}/moto-api/reset", timeout=10)  # its accounts outlive the server
    make_boundary()
    yield f"http://{host}:{port}"
    server.stop()


def test_a_run_from_user_data_to_report(
    endpoint: str, tmp_path: Path, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = Cloud()
    wishes = LaunchRequest(run=RUN, instance="c5.xlarge", regions=(HOME,), max_hours=2)
    data = ["data.train=embedded:docstrings-quick", "data.dev=embedded:docstrings-quick", "max_length=32"]
    steps = [f"max_steps={STEPS}", "epochs=10", "save_every=4", "log_every=1", "eval_every=100"]
    recipe = load_recipe("demo-isotropy", [*data, *steps])
    backup = f"s3://{bucket_name(ACCOUNT, HOME)}/{prefix_of(RUN)}checkpoints"
    plan = make_plan(cloud.aws(), wishes, make_job([recipe], [], None, "float32", backup))
    archive = archive_checkout(REPOSITORY, allow_changes=True)

    first = Computer(tmp_path, launch_run(cloud.aws(), plan, archive, print), endpoint)
    checkpoints = first.work / "checkpoints" / "demo-isotropy" / "checkpoints"
    first.wait_for(lambda: list(checkpoints.glob("step-*/manifest.json")), PATIENCE)
    first.metadata.notice = True
    first.finish(PATIENCE)
    found = _found(cloud)
    assert (found.state(), found.machines) == ("interrupted", ()), first.said()
    assert status_of(found).trainings[0].step < STEPS
    assert first.shutdowns.read_text().splitlines() == ["-h +120 ragcun: --max-hours has run out", "-h now"]

    second = Computer(tmp_path, relaunch(cloud.aws(), found, print, {}), endpoint)
    second.finish(PATIENCE)
    found = _found(cloud)
    assert (found.state(), found.machines) == ("finished", ()), second.said()
    assert status_of(found).attempt == 2

    fetched = fetch_run(found.record, USUAL_PARTS, tmp_path / "here")
    assert (fetched.models, fetched.problems) == (2, [])
    _is_one_training(tmp_path / "here" / "checkpoints" / "demo-isotropy")
    monkeypatch.chdir(tmp_path / "here")
    done = ragcun("report", "table", "--format", "json")
    assert [row["model"] for row in json.loads(done.stdout)["rows"]] == [
        "all-MiniLM-L6-v2 (untouched)",
        "demo-isotropy",
    ]
    assert "nDCG@10" in (tmp_path / "here" / "report" / "table.md").read_text()
    assert (tmp_path / "here" / "report" / "page.html").is_file()
    log = "\n".join(log_lines(cloud.aws(), found, 0, set())[0])
    assert "== training" in log
    assert "== reporting" in log


def test_code_that_was_changed_on_the_way_is_not_run(endpoint: str, tmp_path: Path, checkout: Path) -> None:
    cloud = Cloud()
    plan, attempt = launch_for(cloud, checkout, instance="c5.xlarge", run=RUN)
    (code,) = (key for key in _found(cloud).record.store().keys("code/"))
    _found(cloud).record.write(code, b"something else")
    machine = Computer(tmp_path, attempt, endpoint)
    machine.finish(PATIENCE)
    status = status_of(_found(cloud))
    assert (status.state, status.reason) == ("failed", "the code differs from what was uploaded"), machine.said()
    assert machine.shutdowns.read_text().splitlines()[-1] == "-h now"
    assert "logs/boot-1.log" in _found(cloud).record.store().keys("logs/")
    assert plan.run == RUN


def test_a_machine_that_is_not_fit_says_so_and_ends(endpoint: str, tmp_path: Path) -> None:
    """This one has no GPU, and its type should have one: preflight finds it before any data are fetched."""
    cloud = Cloud()
    plan = plan_for(cloud, ("demo-isotropy",), instance="g5.xlarge", run=RUN)
    archive = archive_checkout(REPOSITORY, allow_changes=True)
    machine = Computer(tmp_path, launch_run(cloud.aws(), plan, archive, print), endpoint)
    machine.finish(PATIENCE)
    found = _found(cloud)
    assert (found.state(), found.machines) == ("failed", ()), machine.said()
    assert (status_of(found).stage, status_of(found).exit_code) == ("preflight", 4)
    assert "GPUs: 0 of 1" in " ".join("".join(log_lines(cloud.aws(), found, 0, set())[0]).split())


def test_a_metadata_service_that_hangs_holds_up_no_timer(endpoint: str, tmp_path: Path, checkout: Path) -> None:
    _, attempt = launch_for(Cloud(), checkout, instance="c5.xlarge", run=RUN)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        machine = Computer(tmp_path, attempt, endpoint, metadata=address)
        machine.wait_for(machine.shutdowns.exists, 10)
        assert machine.shutdowns.read_text() == "-h +600 ragcun: --max-hours has run out\n"
        machine.finish(PATIENCE)
    assert "the metadata service does not answer; this machine ends now" in machine.said()


def test_a_machine_whose_launch_was_not_finished_does_nothing(endpoint: str, tmp_path: Path, checkout: Path) -> None:
    """The launcher was killed before the schedule was recorded: nothing outside would end the machine."""
    cloud = Cloud()
    _, attempt = launch_for(cloud, checkout, instance="c5.xlarge", run=RUN)
    found = _found(cloud)
    found.record.write_launch(found.launch.with_attempts([replace(attempt, instances=())]))
    machine = Computer(tmp_path, attempt, endpoint, patience=0)
    machine.finish(PATIENCE)
    status = status_of(_found(cloud))
    assert (status.state, status.stage) == ("failed", "booting"), machine.said()
    assert status.reason == "the launch did not finish: launch.json does not name this machine"
    assert not (machine.work / "venv").exists()
    after_a_reboot = machine.root / "var/lib/cloud/scripts/per-boot/ragcun"
    assert after_a_reboot.read_text() == "#!/bin/sh\nshutdown -h now\n"
    assert os.access(after_a_reboot, os.X_OK)


def status_of(found: FoundRun) -> MachineStatus:
    assert found.status is not None
    return found.status


def _found(cloud: Cloud) -> FoundRun:
    return require_run(cloud.aws(), ACCOUNT, RUN, HOME, None)


def _is_one_training(folder: Path) -> None:
    """Every step once, over both machines, and a model at the end."""
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(steps)) == list(range(1, STEPS + 1))
    (resumed,) = json.loads((folder / "environment.json").read_text())["resumed"]
    assert 0 < resumed["step"] < STEPS
    assert (folder / "final_model" / "model.safetensors").is_file()
    assert (folder / "best_model" / "model.safetensors").is_file()
