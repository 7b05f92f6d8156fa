"""What several tests share: small models on disk, small data, and the command line in this process."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as ragcun does, before torch is loaded

REPOSITORY = Path(__file__).resolve().parent.parent
# moto makes objects of 1300 machine images for every account, a fifth of the time of the tests that have one.
os.environ["MOTO_AMIS_PATH"] = str(REPOSITORY / "tests" / "aws" / "images.json")

# Real collections for a few checks against published figures; they are not part of the project.
COLLECTIONS = Path(os.environ.get("RAGCUN_TEST_DATA", REPOSITORY.parent / "shared" / "data"))

BUCKET = "experiments"  # of `s3`

# The same inputs every time, few enough for every `make test`; `--hypothesis-profile long` draws many others.
settings.register_profile("fixed", max_examples=40, derandomize=True, deadline=None, database=None)
settings.register_profile("long", max_examples=3000, deadline=None)
settings.load_profile("fixed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With pytest-xdist, tests marked `processes` come first and are shared out one by one; all others go file by file,
    since a file's tests share what they set up.
    """
    for item in items:
        if item.get_closest_marker("processes") is None and item.get_closest_marker("alone") is None:
            place = item.path.relative_to(REPOSITORY).as_posix()
            # One pair of processes serves all tests of this folder.
            shared = "tests/distributed" if place.startswith("tests/distributed") else place
            item.add_marker(pytest.mark.xdist_group(shared))
    items.sort(key=lambda item: item.get_closest_marker("processes") is None)


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAGCUN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def models_of_aws_read_once() -> Iterator[None]:
    """botocore reads a service's JSON again for every session, a quarter of the time of the tests that have many."""
    from botocore.loaders import create_loader

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", functools.cache(create_loader))
        yield


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import build_tiny_bert

    return build_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_mpnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import build_tiny_mpnet

    return build_tiny_mpnet(tmp_path_factory.mktemp("models") / "tiny-mpnet")


@pytest.fixture(scope="session")
def triples_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import write_triples

    return write_triples(tmp_path_factory.mktemp("data") / "triples.jsonl", 80)


@pytest.fixture(scope="session")
def dev_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import write_collection

    return write_collection(tmp_path_factory.mktemp("data") / "tiny-dev", 20, split="dev")


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str


RunCommand = Callable[..., Finished]


@pytest.fixture
def ragcun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Run the command line in this process, through the same entry point as the installed script."""
    from ragcun_cli.main import main

    def run(*arguments: str | Path) -> Finished:
        monkeypatch.setattr(sys, "argv", ["ragcun", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return run


@pytest.fixture
def small_recipe(tmp_path: Path, tiny_bert: Path, triples_file: Path, dev_folder: Path) -> Path:
    """A recipe that trains in about a second: ten steps, a dev set, a checkpoint every three steps."""
    path = tmp_path / "small.yaml"
    path.write_text(
        f"""
base_model: {tiny_bert}
output_dim: 24
max_length: 64
lambda_isotropy: 1
lambda_reg: 0.1
isotropy_options:
  slices: 64
epochs: 2
batch_size: 8
max_steps: 15
warmup_steps: 2
base_learning_rate: 1e-3
log_every: 1
save_every: 4
eval_every: 5
output_dir: {tmp_path / "run"}
data:
  train: {triples_file}
  dev: {dev_folder}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 of our own, with one bucket."""
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client
