"""What a machine uploads: results, logs, kept embeddings, how the run stands; and what it fetches first."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path

import boto3
import pytest

from ragcun_cli.aws.launch_record import FINISHED
from ragcun_cli.aws.machine import nodes, uploads
from ragcun_cli.aws.machine.brakes import Ending
from ragcun_cli.aws.machine.context import MachineContext
from ragcun_cli.aws.machine.inputs import fetch_inputs
from ragcun_cli.aws.machine.uploads import LogStream, Uploader, Uploads
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.errors import DataError
from ragcun_cli.manifest import seal
from tests.aws.cloud import ACCOUNT, HOME, Cloud, refused
from tests.aws.machine.contexts import context_of

DONE = Ending(FINISHED, 0, "")


def files_of(record: RunRecord) -> dict[str, dict[str, object]]:
    listed: dict[str, dict[str, object]] = (record.read_json("files.json") or {})["files"]
    return listed


def test_what_has_changed_is_uploaded_and_listed_with_its_digest(record: RunRecord, work: Path, cloud: Cloud) -> None:
    result = work / "results/isotropy/scifact.json"
    result.write_text("{}")
    (work / "results/isotropy/.half.json").write_text("{")  # being written
    uploader = Uploader(record, work)
    uploader.mirror()
    listed = files_of(record)
    assert list(listed) == ["results/isotropy/scifact.json"]
    before = len(cloud.requests("PutObject"))
    uploader.mirror()
    assert len(cloud.requests("PutObject")) == before
    result.write_text('{"a": 1}')
    uploader.mirror()
    assert files_of(record)["results/isotropy/scifact.json"]["bytes"] == 8
    assert files_of(record) != listed


def test_logs_of_trainings_and_their_trackers_come_along(record: RunRecord, work: Path) -> None:
    (work / "checkpoints/isotropy.log").write_text("said\n")
    (work / "checkpoints/isotropy/trackers").mkdir()
    (work / "checkpoints/isotropy/trackers/events.tfevents").write_bytes(b"0")
    Uploader(record, work).mirror()
    assert record.store().keys("logs/") == ["logs/isotropy.log", "logs/isotropy/trackers/events.tfevents"]


def test_another_node_leaves_the_list_and_the_state_to_the_first(record: RunRecord, work: Path) -> None:
    context = context_of(record, work)
    (work / "logs" / context.log.name).write_text("line\n")
    assert Uploads(context, is_first=False).finish(DONE)
    assert record.read_json("files.json") is None
    assert record.reported().status is None
    assert record.store().keys("nodes/") == [f"nodes/1/states/{context.instance}.json"]
    assert record.store().keys("logs/") == [f"logs/{context.log.name}"]


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


def test_the_state_says_how_each_training_stands(record: RunRecord, work: Path) -> None:
    folder = work / "checkpoints/isotropy"
    (folder / "status.json").write_text(json.dumps({"state": "running", "step": 4, "total_steps": 10}))
    (folder / "metrics.jsonl").write_text('{"step": 4, "loss": 2.0}\n{"step": 5, "loss": 1.5}\n')
    (folder / "speed.jsonl").write_text('{"triples_per_second": 12.5}\n{"trip')
    (work / "results/isotropy/scifact.json").write_text("{}")
    (work / "results/isotropy/model.json").write_text("{}")
    described = uploads.describe(context_of(record, work), "training", None)
    assert (described.state, described.stage, described.attempt) == ("running", "training", 1)
    assert described.datasets_done == ("isotropy/scifact",)
    (training,) = described.trainings
    assert (training.step, training.loss, training.total_steps) == (5, 1.5, 10)
    long = uploads.describe(context_of(record, work), "training", Ending("failed", 1, "x" * 5000))
    record.write_json("status.json", long.as_json())
    assert record.reported().status == long  # not too long for those who validate it


def test_nodes_meet_and_agree_who_is_first(record: RunRecord, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "POLL_SECONDS", 0.05)
    record.write_json("nodes/1/addresses/i-0.json", {"address": "10.0.0.9"})  # of an earlier attempt
    found: dict[str, nodes.Place] = {}

    def meet(instance: str, address: str) -> None:
        found[instance] = nodes.meet(context_of(record, work, 2, instance, address, nodes=2))

    threads = [threading.Thread(target=meet, args=each) for each in (("i-b", "10.0.0.2"), ("i-a", "10.0.0.1"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == {"i-a": nodes.Place(0, "10.0.0.1:29500"), "i-b": nodes.Place(1, "10.0.0.1:29500")}


def test_nodes_that_do_not_come_are_an_error(record: RunRecord, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(nodes, "SECONDS_TO_WAIT", 0.05)
    with pytest.raises(TimeoutError, match="1 of 2 nodes appeared"):
        nodes.meet(context_of(record, work, nodes=2))


def test_inputs_are_what_was_uploaded(record: RunRecord, work: Path) -> None:
    for name in ("scifact", "nfcorpus"):
        record.write(f"results/isotropy/{name}.json", b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    entries = {"results/isotropy/scifact.json": {"sha256": digest}, "results/isotropy/nfcorpus.json": {"sha256": "x"}}
    record.write_json("files.json", {"files": entries})
    fetch_inputs(context_of(record, work))
    assert not (work / "results/isotropy/nfcorpus.json").exists()  # cut off: it is scored again
    assert "lambda_isotropy: 1" in (work / "recipes/isotropy.yaml").read_text()
    assert (work / "untouched").read_text() == "sentence-transformers/all-mpnet-base-v2\n"
    assert (work / "results/isotropy/scifact.json").read_text() == "{}"
    record.write("recipes/isotropy.yaml", b"name: another\n")
    with pytest.raises(DataError, match=r"recipes/isotropy\.yaml: differs from what was uploaded"):
        fetch_inputs(context_of(record, work))


def test_what_an_earlier_machine_listed_and_cannot_be_had_is_scored_again(
    record: RunRecord, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record.write("results/isotropy/here.json", b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    names = ("results/../../outside", "results/isotropy/gone.json", "results/isotropy/here.json")
    record.write_json("files.json", {"files": {name: {"sha256": digest} for name in names}})
    fetch_inputs(context_of(record, work))
    said = capsys.readouterr().out
    assert "the part '..'" in said
    assert "gone.json" in said or "NoSuchKey" in said or "Not Found" in said
    assert (work / "results/isotropy/here.json").read_bytes() == b"{}"
    assert not (work.parent / "outside").exists()


def test_staged_downloads_come_from_the_bucket(record: RunRecord, work: Path) -> None:
    store = boto3.client("s3", region_name=HOME)
    store.put_object(Bucket=record.bucket, Key="datasets/scifact.zip", Body=b"a zip")
    store.put_object(Bucket=record.bucket, Key="datasets/another.zip", Body=b"not asked for")
    fetch_inputs(context_of(record, work, downloads=("scifact",)))
    assert (work / "data/scifact.zip").read_bytes() == b"a zip"
    assert sorted(path.name for path in (work / "data").iterdir()) == ["scifact.zip"]


def test_a_machine_that_is_not_named_by_the_record_does_nothing(
    record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "RAGCUN_ACCOUNT": ACCOUNT, "RAGCUN_BUCKET": record.bucket, "AWS_DEFAULT_REGION": HOME,
        "RAGCUN_RUN": "isotropy", "RAGCUN_ATTEMPT": "1", "RAGCUN_INSTANCE": "i-0", "RAGCUN_ADDRESS": "10.0.0.1",
        "RAGCUN_CACHE": "cache",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=r"launch\.json does not name i-0 for attempt 1"):
        MachineContext.read()
    launch = record.launch()
    assert launch is not None
    monkeypatch.setenv("RAGCUN_INSTANCE", launch.attempts[0].instances[0])
    context = MachineContext.read()
    assert (context.nodes, context.attempt, context.launch) == (1, launch.attempts[0], launch)


@pytest.mark.parametrize(("operation", "arrives"), [("PutLogEvents", True), ("PutObject", False)])
def test_what_cannot_be_uploaded_holds_up_nothing_else(
    record: RunRecord, work: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, operation: str, arrives: bool
) -> None:
    monkeypatch.setattr(uploads, "PAUSES_OF_THE_LAST", (0, 0))
    context = context_of(record, work)
    context.log.write_text("line\n")
    cloud.before = lambda service, name: refused("AccessDenied", name) if name == operation else None
    assert Uploads(context, is_first=True).finish(DONE) == arrives
    cloud.before = lambda service, name: None
    status = record.reported().status
    assert (status.state if status else None) == ("finished" if arrives else None)


def test_a_run_is_not_over_before_its_results_are_there(
    record: RunRecord, work: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PAUSES_OF_THE_LAST", (0, 0, 0))
    context = context_of(record, work)
    context.log.write_text("line\n")
    (work / "results/isotropy/scifact.json").write_text("{}")
    left = 2

    def no_results(service: str, operation: str) -> Exception | None:
        nonlocal left
        if operation != "PutObject" or "/results/" not in cloud.sent[-1][2]["Key"] or not left:
            return None
        left -= 1
        assert record.reported().status is None
        return refused("SlowDown", operation, 503)

    cloud.before = no_results
    assert Uploads(context, is_first=True).finish(DONE)
    status = record.reported().status
    assert status is not None
    assert (left, status.state) == (0, "finished")


def test_the_first_look_may_be_refused(record: RunRecord, work: Path, cloud: Cloud) -> None:
    """S3 answers 403 to those who may list their prefix only, for what is not there."""
    context = context_of(record, work)
    context.log.write_text("line\n")
    (work / "results/isotropy/scifact.json").write_text("{}")
    cloud.before = lambda service, operation: refused("AccessDenied", operation) if operation == "GetObject" else None
    assert Uploads(context, is_first=True).finish(DONE)
    cloud.before = lambda service, operation: None
    assert "results/isotropy/scifact.json" in files_of(record)


def test_how_the_run_ended_is_said_last(record: RunRecord, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A regular upload that was held up must not write over it."""
    context = context_of(record, work)
    context.log.write_text("line\n")
    held, go_on = threading.Event(), threading.Event()
    kept = Uploads(context, is_first=True)
    mirror = kept._uploader.mirror

    def slow() -> None:
        if not held.is_set():
            held.set()
            go_on.wait(10)
        mirror()

    monkeypatch.setattr(kept._uploader, "mirror", slow)
    kept.start()
    assert held.wait(10)
    ended = threading.Thread(target=lambda: kept.finish(DONE))
    ended.start()
    time.sleep(0.1)
    go_on.set()
    ended.join(10)
    time.sleep(0.1)
    status = record.reported().status
    assert status is not None
    assert status.state == "finished"
    assert kept.upload(None) is False
