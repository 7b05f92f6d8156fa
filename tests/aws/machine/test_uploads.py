"""What run.sh calls on the machine, part by part: uploads, the log, the reasons to end, nodes that meet, inputs."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import threading
import time
from pathlib import Path

import boto3
import pytest

from ragcun_cli.aws.machine import nodes, uploads
from ragcun_cli.aws.machine.inputs import fetch_inputs
from ragcun_cli.aws.machine.node_context import NodeContext
from ragcun_cli.aws.machine.uploads import LogStream, Uploader, Watch
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.errors import DataError
from ragcun_cli.manifest import seal
from tests.aws.cloud import ACCOUNT, HOME, Cloud, refused
from tests.aws.every_command import BUCKET
from tests.aws.launch_builders import launch_for
from tests.faults.metadata_service import MetadataServer


@pytest.fixture
def record(cloud: Cloud, checkout: Path) -> RunRecord:
    launch_for(cloud, checkout)
    return RunRecord(cloud.aws(), ACCOUNT, BUCKET, HOME, "isotropy")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the machine works."""
    monkeypatch.chdir(tmp_path)
    for name in ("state", "results/isotropy", "report", "logs", "checkpoints/isotropy"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def here(**changes: object) -> NodeContext:
    known: dict[str, object] = {
        "run": "isotropy", "account": ACCOUNT, "bucket": BUCKET, "region": HOME, "instance": "i-1",
        "address": "10.0.0.1", "attempt": 1, "nodes": 1, "idle_minutes": 30.0, "end": time.time() + 7200,
    }  # fmt: skip
    return NodeContext(**{**known, **changes})


def test_what_has_changed_is_uploaded_and_listed_with_its_digest(record: RunRecord, work: Path, cloud: Cloud) -> None:
    result = work / "results/isotropy/scifact.json"
    result.write_text("{}")
    (work / "results/isotropy/.half.json").write_text("{")  # being written
    uploader = Uploader(record, work)
    uploader.mirror()
    listed = (record.read_json("files.json") or {})["files"]
    assert list(listed) == ["results/isotropy/scifact.json"]
    before = len(cloud.requests("PutObject"))
    uploader.mirror()
    assert len(cloud.requests("PutObject")) == before
    result.write_text('{"a": 1}')
    uploader.mirror()
    again = (record.read_json("files.json") or {})["files"]
    assert again["results/isotropy/scifact.json"]["bytes"] == 8
    assert again != listed


def test_logs_of_trainings_and_their_trackers_come_along(record: RunRecord, work: Path) -> None:
    (work / "checkpoints/isotropy.log").write_text("said\n")
    (work / "checkpoints/isotropy/trackers").mkdir()
    (work / "checkpoints/isotropy/trackers/events.tfevents").write_bytes(b"0")
    Uploader(record, work).mirror()
    assert record.store().keys("logs/") == ["logs/isotropy.log", "logs/isotropy/trackers/events.tfevents"]


def test_another_node_leaves_the_list_to_the_first(record: RunRecord, work: Path) -> None:
    (work / "logs/1-i-2.log").write_text("line\n")
    Uploader(record, work, is_first=False).mirror()
    assert record.read_json("files.json") is None
    assert record.store().keys("logs/") == ["logs/1-i-2.log"]


def test_blocks_of_embeddings_are_kept_until_their_dataset_is_done(record: RunRecord, work: Path) -> None:
    cache = work / "cache"

    def block(name: str) -> None:
        folder = cache / "embeddings" / "model" / name
        folder.mkdir(parents=True)
        (folder / "vectors.npy").write_bytes(b"0" * 100)
        seal(folder, texts=1)

    uploader, caches = Uploader(record, work), record.caches()
    block("first")
    uploader.keep_embeddings(cache)
    assert "embeddings/model/first/manifest.json" in caches.keys("")
    time.sleep(0.02)
    (work / "results/isotropy/scifact.json").write_text("{}")
    time.sleep(0.02)
    block("second")
    uploader.keep_embeddings(cache)
    kept = {key.split("/")[2] for key in caches.keys("")}
    assert kept == {"second"}


def test_the_log_goes_in_whole_lines_and_each_once(record: RunRecord, work: Path) -> None:
    log = work / "logs/1-i-1.log"
    log.write_text("one\n\ntwo\nthr")
    stream = LogStream(record, HOME, "1-i-1", log)
    stream.send()
    stream.send()
    with log.open("a") as more:
        more.write("ee\n" + "x\n" * 1500)
    stream.send()
    stream.send()
    logs = boto3.client("logs", region_name=HOME)
    events = logs.get_log_events(logGroupName="/ragcun/isotropy", logStreamName="1-i-1", startFromHead=True)["events"]
    assert [event["message"] for event in events[:4]] == ["one", "two", "three", "x"]
    assert sum(event["message"] == "x" for event in events) == 1500


def _idle(work: Path, monkeypatch: pytest.MonkeyPatch, percent: str) -> None:
    program = work / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{percent}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{work}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("percent", "stage", "ends"),
    [
        ("0\\n3\\n", "training", True),
        ("0\\n3\\n", "evaluating", True),
        ("0\\n97\\n", "training", False),  # one of several GPUs works
        ("0\\n0\\n", "downloading", False),
        ("no GPU\\n", "training", False),
    ],
)
def test_idle_gpus_end_the_run(
    work: Path, monkeypatch: pytest.MonkeyPatch, percent: str, stage: str, ends: bool
) -> None:
    _idle(work, monkeypatch, percent)
    (work / "state/stage").write_text(f"{stage}\n")
    watch = Watch(here(idle_minutes=1.0), None)
    watch.look()
    watch.busy -= 30
    watch.look()
    assert not (work / "state/stop").exists()
    watch.busy -= 40
    watch.look()
    assert (work / "state/stop").exists() == ends
    if ends:
        assert (work / "state/stop-as").read_text() == "idle"
        assert (work / "state/stop").read_text() == "the GPUs were idle for 1 minutes"


def test_the_end_of_max_hours_leaves_time_to_save(work: Path) -> None:
    Watch(here(end=time.time() + 700), None).look()
    assert not (work / "state/stop").exists()
    Watch(here(end=time.time() + 500), None).look()
    assert (work / "state/stop-as").read_text() == "out-of-time"


def test_a_spot_notice_ends_whatever_runs(work: Path) -> None:
    """Also what a function of the script runs, whose shell would keep the signal to itself."""
    service = MetadataServer()
    script = "evaluate() { sleep 60; echo ended with $?; }; evaluate & wait"
    shell = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True)
    watch = Watch(here(), service.address)
    watch.look()
    assert not (work / "state/stop").exists()
    time.sleep(0.3)
    function = subprocess.run(["pgrep", "-P", str(shell.pid)], capture_output=True, text=True, check=True).stdout
    (work / "state/process").write_text(function)
    service.notice = True
    watch.look()
    out, _ = shell.communicate(timeout=10)
    assert out == f"ended with {128 + signal.SIGTERM}\n"
    assert (work / "state/stop-as").read_text() == "interrupted"
    json.loads(json.dumps({"reason": (work / "state/stop").read_text()}))
    assert '"' not in (work / "state/stop").read_text()  # run.sh writes it into JSON


def test_the_state_says_how_each_training_stands(work: Path) -> None:
    folder = work / "checkpoints/isotropy"
    (folder / "status.json").write_text(json.dumps({"state": "running", "step": 4, "total_steps": 10}))
    (folder / "metrics.jsonl").write_text('{"step": 4, "loss": 2.0}\n{"step": 5, "loss": 1.5}\n')
    (folder / "speed.jsonl").write_text('{"triples_per_second": 12.5}\n{"trip')
    (work / "results/isotropy/scifact.json").write_text("{}")
    (work / "results/isotropy/model.json").write_text("{}")
    (work / "state/stage").write_text("training\n")
    described = uploads.describe(here(), work, None)
    assert (described["state"], described["stage"], described["attempt"]) == ("running", "training", 1)
    assert described["datasets_done"] == ["isotropy/scifact"]
    (training,) = described["trainings"]
    assert (training["step"], training["loss"], training["total_steps"]) == (5, 1.5, 10)


def test_nodes_meet_and_agree_who_is_first(record: RunRecord, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "POLL_SECONDS", 0.05)
    record.write_json("nodes/1/addresses/i-0.json", {"address": "10.0.0.9"})  # of an earlier attempt
    found: dict[str, tuple[int, str]] = {}

    def meet(instance: str, address: str) -> None:
        found[instance] = nodes.meet(record, here(instance=instance, address=address, nodes=2, attempt=2))

    threads = [threading.Thread(target=meet, args=each) for each in (("i-b", "10.0.0.2"), ("i-a", "10.0.0.1"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == {"i-a": (0, "10.0.0.1"), "i-b": (1, "10.0.0.1")}


def test_nodes_that_do_not_come_are_an_error(record: RunRecord, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(nodes, "SECONDS_TO_WAIT", 0.05)
    with pytest.raises(TimeoutError, match="1 of 2 nodes appeared"):
        nodes.meet(record, here(nodes=2))


def test_inputs_are_what_was_uploaded(record: RunRecord, work: Path) -> None:
    for name in ("scifact", "nfcorpus"):
        record.write(f"results/isotropy/{name}.json", b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    entries = {"results/isotropy/scifact.json": {"sha256": digest}, "results/isotropy/nfcorpus.json": {"sha256": "x"}}
    record.write_json("files.json", {"files": entries})
    fetch_inputs(record, work, work / "cache")
    assert not (work / "results/isotropy/nfcorpus.json").exists()  # cut off: it is scored again
    assert "lambda_isotropy: 1" in (work / "recipes/isotropy.yaml").read_text()
    assert (work / "untouched").read_text() == "sentence-transformers/all-mpnet-base-v2\n"
    assert (work / "results/isotropy/scifact.json").read_text() == "{}"
    record.write("recipes/isotropy.yaml", b"name: another\n")
    with pytest.raises(DataError, match=r"recipes/isotropy\.yaml: differs from what was uploaded"):
        fetch_inputs(record, work, work / "cache")


def test_a_machine_that_is_not_told_what_is_not_there_begins_all_the_same(
    record: RunRecord, work: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers 403 to those who may list their prefix only: the first look at files.json must not end the uploads."""
    cloud.before = lambda service, operation: refused("AccessDenied", operation) if operation == "GetObject" else None
    monkeypatch.setattr(NodeContext, "record", lambda self: record)
    monkeypatch.setattr(uploads, "POLL_SECONDS", 0.01)
    (work / "logs/log").write_text("line\n")
    (work / "results/isotropy/scifact.json").write_text("{}")
    (work / "state/over").write_text('{"state": "finished", "exit_code": 0, "reason": ""}')
    uploads.run(here(), work / "logs/log", work, work / "cache")
    cloud.before = lambda service, operation: None
    assert record.status()["state"] == "finished"
    assert "results/isotropy/scifact.json" in (record.read_json("files.json") or {})["files"]


@pytest.mark.parametrize(("operation", "ends_well"), [("PutLogEvents", True), ("PutObject", False)])
def test_what_cannot_be_uploaded_holds_up_nothing_else(
    record: RunRecord, work: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, operation: str, ends_well: bool
) -> None:
    monkeypatch.setattr(NodeContext, "record", lambda self: record)
    monkeypatch.setattr(uploads.time, "sleep", lambda seconds: None)
    (work / "logs/log").write_text("line\n")
    (work / "state/over").write_text('{"state": "finished", "exit_code": 0, "reason": ""}')
    cloud.before = lambda service, name: refused("AccessDenied", name) if name == operation else None
    if ends_well:
        uploads.run(here(), work / "logs/log", work, work / "cache")
        assert record.status()["state"] == "finished"
    else:
        with pytest.raises(OSError, match="the final upload failed"):  # run.sh then copies by AWS's own command
            uploads.run(here(), work / "logs/log", work, work / "cache")


def test_a_run_is_not_over_before_its_results_are_there(
    record: RunRecord, work: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NodeContext, "record", lambda self: record)
    monkeypatch.setattr(uploads.time, "sleep", lambda seconds: None)
    (work / "logs/log").write_text("line\n")
    (work / "results/isotropy/scifact.json").write_text("{}")
    (work / "state/over").write_text('{"state": "finished", "exit_code": 0, "reason": ""}')
    left = 2

    def no_results(service: str, operation: str) -> Exception | None:
        nonlocal left
        if operation != "PutObject" or "/results/" not in cloud.sent[-1][2]["Key"] or not left:
            return None
        left -= 1
        assert record.status() == {}
        return refused("SlowDown", operation, 503)

    cloud.before = no_results
    uploads.run(here(), work / "logs/log", work, work / "cache")
    assert (left, record.status()["state"]) == (0, "finished")
