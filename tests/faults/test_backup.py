"""Backups in a folder and in S3 (moto): what is there after a loss, and what errors of the store do to a run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.storage import s3 as s3_layer
from ragcun_cli.storage import snapshots, stores
from ragcun_cli.storage.s3 import AlreadyThereError
from ragcun_cli.storage.stores import ObjectStore, open_store
from ragcun_cli.train import arm
from ragcun_cli.train import backup as running
from ragcun_cli.train.arm import train_arm
from tests.conftest import BUCKET
from tests.damage import damage
from tests.faults.train_process import assert_same_run, status
from tests.training_runs import load, stopped_at

pytestmark = pytest.mark.alone  # counts on the copies of checkpoints keeping up with the run


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "backup")
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/runs"


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(arm, "SECONDS_TO_LEAVE", 20.0)
    monkeypatch.setattr(arm, "SECONDS_TO_FINISH", 20.0)
    monkeypatch.setattr(s3_layer, "ATTEMPTS", 2)


def recipe_with(small_recipe: Path, address: str, output: Path, *changes: str) -> Recipe:
    return load(small_recipe, *changes, f"backup='{address}'", f"output_dir='{output}'")


def interrupted(recipe: Recipe) -> ObjectStore:
    """Run until checkpoints of steps 4 and 8 are copied, and lose the disk. Before the dev score of step 10: if it came
    before the copy of step 8, as on a busy machine, the best model of step 5 would be gone.
    """
    store = open_store(str(recipe.backup), Path(recipe.output_dir).name)

    def until_copied() -> None:
        deadline = time.monotonic() + 60
        while "checkpoints/step-00000008" not in snapshots.folders_in(store, "checkpoints/"):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    with stopped_at(9, until_copied):
        train_arm(recipe)
    shutil.rmtree(recipe.output_dir)
    return store


def test_a_run_goes_on_from_its_backup_on_an_empty_disk(
    small_recipe: Path, tmp_path: Path, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    train_arm(load(small_recipe, f"output_dir='{tmp_path / 'whole'}'"))
    recipe = recipe_with(small_recipe, address, tmp_path / "run")
    store = interrupted(recipe)
    assert snapshots.folders_in(store, "checkpoints/") == ["checkpoints/step-00000004", "checkpoints/step-00000008"]
    assert snapshots.folders_in(store, "models/") == ["models/best-00000005"]
    assert json.loads(store.read("run/status.json") or b"")["state"] in (
        "running",
        "interrupted",
    )  # copied before or after
    train_arm(recipe, resume=True)
    assert "fetching checkpoints/step-00000008" in capfd.readouterr().err
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    # And when it is finished its models are there, for another empty disk.
    shutil.rmtree(recipe.output_dir)
    summary = train_arm(recipe, resume=True)
    assert "there is nothing left to do" in capfd.readouterr().err
    assert summary.steps == 15
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert len(snapshots.folders_in(store, "checkpoints/")) == 2


def test_a_copy_that_was_killed_does_not_exist(
    small_recipe: Path, tmp_path: Path, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_with(small_recipe, address, tmp_path / "run")
    store = interrupted(recipe)
    store.delete(["checkpoints/step-00000008/manifest.json"])  # which is written last
    train_arm(recipe, resume=True)
    assert "resumed at step 4" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["flip", "truncate", "remove"])
def test_a_damaged_copy_is_skipped_with_its_reason(
    small_recipe: Path, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_with(small_recipe, str(tmp_path / "backup"), tmp_path / "run")
    interrupted(recipe)
    damage(tmp_path / "backup" / "run" / "checkpoints" / "step-00000008", "optimiser.safetensors", kind)
    train_arm(recipe, resume=True)
    said = capfd.readouterr().err
    assert "backup: skipping checkpoints/step-00000008: " in said
    assert "resumed at step 4" in said


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int, str], bool], code: int) -> list[str]:
    """Let S3 answer some of the requests with an error; the list of those."""
    real, failed, count = stores.s3_client, [], [0]

    def answer(request: Any, **_: Any) -> AWSResponse | None:
        if request.method != "PUT":
            return None
        count[0] += 1
        if not fails(count[0], request.url):
            return None
        failed.append(request.url)
        body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
        return AWSResponse(request.url, code, {}, _Body(body))

    def client() -> Any:
        made = real()
        made.meta.events.register_first("before-send.s3", answer)
        return made

    monkeypatch.setattr(stores, "s3_client", client)
    return failed


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._content


@pytest.mark.parametrize("code", [500, 503])
def test_errors_of_s3_are_said_and_tried_again(
    s3: Any, small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    train_arm(load(small_recipe, f"output_dir='{tmp_path / 'whole'}'"))
    failed = failing(monkeypatch, lambda count, _: count % 3 == 1, code)
    recipe = recipe_with(small_recipe, f"s3://{BUCKET}/runs", tmp_path / "run")
    train_arm(recipe)
    said = capfd.readouterr().err
    assert failed
    assert "next attempt in" in said
    assert "backup: working again" in said
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    shutil.rmtree(recipe.output_dir)
    train_arm(recipe, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_store_that_stays_away_never_stops_training(
    s3: Any, small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, lambda *_: True, 503)
    monkeypatch.setattr(arm, "SECONDS_TO_FINISH", 0.5)
    summary = train_arm(recipe_with(small_recipe, f"s3://{BUCKET}/runs", tmp_path / "run"))
    assert summary.steps == 15
    assert status(tmp_path / "run")["state"] == "finished"
    assert "backup: NOT COMPLETE: s3://experiments/runs/run/: " in capfd.readouterr().err


def test_a_manifest_never_vouches_for_other_files(small_recipe: Path, tmp_path: Path, address: str) -> None:
    """The folder's content has changed: files are replaced while no manifest is there."""
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a.bin").write_bytes(b"one")
    store = open_store(address, "folders")
    snapshots.upload_folder(store, folder, "x")
    (folder / "below" / "a.bin").write_bytes(b"two")
    seen: list[bool] = []
    real = type(store).put

    def spying(self: ObjectStore, key: str, path: Path) -> None:
        seen.append(store.read("x/manifest.json") is None)
        real(self, key, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store), "put", spying)
        snapshots.upload_folder(store, folder, "x")
        snapshots.upload_folder(store, folder, "x")  # nothing to do
    assert seen == [True]
    assert snapshots.fetch_folder(store, "x", tmp_path / "back", keeps_manifest=False) is None
    assert (tmp_path / "back" / "below" / "a.bin").read_bytes() == b"two"
    with pytest.raises(AlreadyThereError):
        store.put_new("x/manifest.json", b"{}")
    snapshots.remove_folder(store, "x")
    assert store.keys("") == []


def test_another_run_of_the_same_name_is_not_mixed_with_it(small_recipe: Path, tmp_path: Path, address: str) -> None:
    recipe = recipe_with(small_recipe, address, tmp_path / "run")
    store = interrupted(recipe)
    with pytest.raises(UsageError, match="already holds a run named run"):
        train_arm(recipe)
    with pytest.raises(UsageError, match="the recipe has changed: lambda_reg"):
        train_arm(recipe.model_copy(update={"lambda_reg": 0.7}), resume=True)
    shutil.rmtree(recipe.output_dir)
    train_arm(recipe.model_copy(update={"lambda_reg": 0.7, "max_steps": 2}), overwrite=True)
    assert snapshots.folders_in(store, "checkpoints/") == []
    assert json.loads(store.read("run/status.json") or b"")["step"] == 2


def test_a_place_that_cannot_be_used_is_refused_before_the_first_text(
    s3: Any, small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for address, error, words in (
        ("s3://", UsageError, "the bucket's name is missing"),
        ("gs://bucket/x", UsageError, "neither s3://"),
        ("s3://nobody-has-this/x", EnvironmentUnfit, "NoSuchBucket"),
        ("s3://Not A Bucket/x", EnvironmentUnfit, "Invalid bucket name"),
        (str(tmp_path / "file"), EnvironmentUnfit, "Not a directory|File exists"),
    ):
        with pytest.raises(error, match=words):
            train_arm(recipe_with(small_recipe, address, tmp_path / "run"))
        assert not (tmp_path / "run").exists()
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(EnvironmentUnfit, match="needs boto3") as caught:
        train_arm(recipe_with(small_recipe, f"s3://{BUCKET}/x", tmp_path / "run"))
    assert "ragcun[aws]" in caught.value.hint


def test_a_slow_store_gets_the_newest_checkpoint_though_training_removes_it(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stores.FolderStore.put

    def slow(self: stores.FolderStore, key: str, path: Path) -> None:
        if key.endswith("model.safetensors") and "checkpoints" in key:
            time.sleep(0.7)  # meanwhile the checkpoint is removed
        real(self, key, path)

    monkeypatch.setattr(stores.FolderStore, "put", slow)
    changes = ["epochs=6", "max_steps=null", "save_every=1", "eval_every=50"]
    recipe = recipe_with(small_recipe, str(tmp_path / "backup"), tmp_path / "run", *changes)
    with stopped_at(55):
        train_arm(recipe)
    kept = snapshots.folders_in(open_store(str(tmp_path / "backup"), "run"), "checkpoints/")
    assert kept
    assert kept[-1] == "checkpoints/step-00000055"
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_a_fetch_that_was_cut_off_is_made_again(
    small_recipe: Path, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of the download: what lies there then is a run's folder and no stranger's."""
    train_arm(load(small_recipe, f"output_dir='{tmp_path / 'whole'}'"))
    recipe = recipe_with(small_recipe, address, tmp_path / "run")
    store = interrupted(recipe)
    real = type(store).fetch

    def cut_off(self: ObjectStore, key: str, path: Path) -> None:
        if key.endswith("optimiser.safetensors"):
            raise KeyboardInterrupt
        real(self, key, path)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "fetch", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train_arm(recipe, resume=True)
    train_arm(recipe, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_models_whose_copy_was_cut_off_are_copied_by_resume(small_recipe: Path, tmp_path: Path, address: str) -> None:
    recipe = recipe_with(small_recipe, address, tmp_path / "run")
    train_arm(recipe)
    store = open_store(address, "run")
    whole = snapshots.folders_in(store, "models/")
    assert whole[-1] == "models/final"
    store.delete(["models/final/manifest.json"])
    train_arm(recipe, resume=True)
    assert snapshots.folders_in(store, "models/") == whole


def test_a_backup_inside_of_the_run_is_refused(small_recipe: Path, tmp_path: Path) -> None:
    for inside in (tmp_path, tmp_path / "run"):  # <backup>/run is the run's folder, or lies in it
        with pytest.raises(UsageError, match="overlap: one is inside the other"):
            train_arm(recipe_with(small_recipe, str(inside), tmp_path / "run"))


def test_a_bucket_that_may_be_read_only_is_refused_at_once(
    s3: Any, small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, lambda *_: True, 403)
    with pytest.raises(EnvironmentUnfit, match="SlowDown"):
        train_arm(recipe_with(small_recipe, f"s3://{BUCKET}/runs", tmp_path / "run"))
    assert not (tmp_path / "run").exists()
