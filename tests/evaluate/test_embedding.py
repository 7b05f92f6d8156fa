"""Embeddings are kept by content, made once, found whole, and go on where a killed evaluation stopped."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ragcun_cli.data.collection import Collection, read_collection
from ragcun_cli.errors import EnvironmentUnfit, ModelError
from ragcun_cli.evaluate.embedding import Embedder
from ragcun_cli.evaluate.models import ScoredModel, open_model
from ragcun_cli.model import IsotropicGaussianEncoder, feature_store
from ragcun_cli.model.folder import save_encoder
from ragcun_cli.model.vector_store import VectorStore
from tests.damage import KINDS, damage
from tests.retrieval_tasks import write_task
from tests.tiny_models import write_collection

pytestmark = pytest.mark.processes


@pytest.fixture
def task(tmp_path: Path) -> Collection:
    return read_collection(write_collection(tmp_path / "task", 40))


@pytest.fixture
def trained(tiny_bert: Path, tmp_path: Path) -> ScoredModel:
    """A model with a head, and an encoder that was trained too."""
    encoder = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=12)
    save_encoder(encoder, tmp_path / "model")
    return open_model(str(tmp_path / "model"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that pass an encoder from here on."""
    texts: list[str] = []
    real = IsotropicGaussianEncoder.tokenize
    monkeypatch.setattr(
        IsotropicGaussianEncoder, "tokenize", lambda self, some: (texts.extend(some), real(self, some))[1]
    )
    return texts


def of_all(embedder: Embedder, collection: Collection) -> np.ndarray:
    return embedder.embed(collection).passages.of_passages(np.arange(len(collection.corpus)))


@pytest.mark.parametrize("kind", ["trained", "untouched", "frozen"])
def test_embeddings_are_the_encoders(
    kind: str, task: Collection, trained: ScoredModel, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(feature_store.BLOCK_TEXTS, "cpu", 7)
    model = open_model(str(tiny_bert)) if kind == "untouched" else trained
    model = ScoredModel(model.encoder, model.entry, frozen=kind != "trained")
    done: list[int] = []
    embedded = Embedder(model, tmp_path / "cache").embed(task, done.append)
    expected = model.encoder.encode(task.corpus.texts())
    np.testing.assert_allclose(embedded.passages.of_passages(np.arange(40)), expected, atol=1e-5)
    np.testing.assert_allclose(embedded.queries, model.encoder.encode(task.queries), atol=1e-5)
    assert sum(done) == 80
    kept = {path.parent.name for path in (tmp_path / "cache").glob("*/*/")}
    assert kept == {"trained": {"embeddings"}, "untouched": {"features"}, "frozen": {"features", "embeddings"}}[kind]


def test_a_second_evaluation_encodes_nothing(
    task: Collection, trained: ScoredModel, tmp_path: Path, encoded: list[str]
) -> None:
    first = of_all(Embedder(trained, tmp_path / "cache"), task)
    assert len(encoded) == 80
    np.testing.assert_array_equal(of_all(Embedder(trained, tmp_path / "cache"), task), first)
    assert len(encoded) == 80


def test_another_head_length_or_precision_is_another_store(
    task: Collection, trained: ScoredModel, tmp_path: Path, encoded: list[str]
) -> None:
    of_all(Embedder(trained, tmp_path / "cache"), task)
    shorter = open_model(str(tmp_path / "model"), max_length=5)
    half = open_model(str(tmp_path / "model"), precision="bf16")
    with torch.no_grad():
        other_head = open_model(str(tmp_path / "model"))
        next(other_head.encoder.head.parameters()).view(-1)[0] += 1e-3
    for number, model in enumerate((shorter, half, other_head), start=2):
        of_all(Embedder(model, tmp_path / "cache"), task)
        assert len(encoded) == 80 * number
    rounded = of_all(Embedder(half, tmp_path / "cache"), task)
    exact = of_all(Embedder(trained, tmp_path / "cache"), task)
    assert 0 < np.abs(rounded - exact).max() < 0.2  # really computed in bfloat16


def test_corpora_with_the_same_texts_share_them(trained: ScoredModel, tmp_path: Path, encoded: list[str]) -> None:
    """As FEVER and Climate-FEVER do, all but 25 of whose passages are the same."""
    shared = {f"d{number}": f"w{number} w{number + 1} w1" for number in range(30)}
    fever = write_task(tmp_path / "fever", shared, {"q": "w1 w2"}, {"q": {"d1": 1}})
    more = shared | {"extra": "w9 w9 w9", "again": shared["d3"]}
    climate = write_task(tmp_path / "climate-fever", more, {"c": "w5"}, {"c": {"d5": 1}})
    of_all(Embedder(trained, tmp_path / "cache"), read_collection(fever))
    assert len(encoded) == 31
    of_all(Embedder(trained, tmp_path / "cache"), read_collection(climate))
    assert sorted(encoded[31:]) == ["w5", "w9 w9 w9"]


@pytest.mark.parametrize("name", ["vectors.npy", "keys.npy"])
@pytest.mark.parametrize("kind", [*KINDS, "empty", "other dimension"])
def test_a_damaged_shard_is_made_again(
    kind: str, name: str, task: Collection, trained: ScoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    encoded: list[str], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(feature_store.BLOCK_TEXTS, "cpu", 10)
    expected = of_all(Embedder(trained, tmp_path / "cache"), task)
    shard = sorted((tmp_path / "cache").glob("embeddings/*/*/vectors.npy"))[0].parent
    if kind == "other dimension":
        from ragcun_cli.manifest import seal

        np.save(shard / "vectors.npy", np.zeros((10, 5), dtype=np.float32))
        (shard / "manifest.json").unlink()
        seal(shard)
    else:
        damage(shard, name, kind)
    encoded.clear()
    np.testing.assert_array_equal(of_all(Embedder(trained, tmp_path / "cache"), task), expected)
    assert len(encoded) == 10
    said = capsys.readouterr().err
    lost = name == "keys.npy" and kind in ("truncate", "remove", "empty")  # then no text is found there at all
    assert lost or "its texts will be encoded again" in said
    assert kind != "other dimension" or "5 dimensions, but the model's 12" in said


def test_what_is_not_finite_is_named_and_nothing_of_its_block_is_kept(
    task: Collection, trained: ScoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(feature_store.BLOCK_TEXTS, "cpu", 10)
    real = IsotropicGaussianEncoder.project
    calls = iter(range(100))

    def broken(self: IsotropicGaussianEncoder, features: torch.Tensor) -> np.ndarray:
        embeddings = real(self, features)
        if next(calls) == 5:  # the second block of passages, after four of queries
            embeddings[[2, 4], 0] = np.nan
        return embeddings

    monkeypatch.setattr(IsotropicGaussianEncoder, "project", broken)
    with pytest.raises(ModelError, match=r"for 2 of 10 texts, such as passage 'd12', passage 'd14'"):
        of_all(Embedder(trained, tmp_path / "cache"), task)
    assert len(list((tmp_path / "cache").glob("embeddings/*/*/"))) == 5


def test_a_full_disk_leaves_whole_shards_only(
    task: Collection, trained: ScoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(feature_store.BLOCK_TEXTS, "cpu", 10)
    real, calls = np.save, iter(range(100))

    def full(path: Path, values: np.ndarray) -> None:
        if next(calls) == 13:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        real(path, values)

    with monkeypatch.context() as patch:
        patch.setattr("ragcun_cli.model.vector_store.np.save", full)
        with pytest.raises(OSError, match="No space left"):
            of_all(Embedder(trained, tmp_path / "cache"), task)
    left = [path for path in (tmp_path / "cache" / "embeddings").glob("*/*") if path.is_dir()]
    assert len(left) == 6
    assert all((path / "manifest.json").is_file() for path in left)
    with monkeypatch.context() as patch:
        patch.setattr(VectorStore, "free_bytes", lambda self: 100)
        with pytest.raises(EnvironmentUnfit, match="the vectors of 20 texts need"):
            of_all(Embedder(trained, tmp_path / "cache"), task)


def test_a_limit_removes_what_was_not_used_longest(
    trained: ScoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[str]
) -> None:
    monkeypatch.setitem(feature_store.BLOCK_TEXTS, "cpu", 10)
    tasks = [read_collection(write_collection(tmp_path / f"task{n}", 40, seed=n)) for n in range(3)]

    def size() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "cache").glob("*/*/*/*"))

    for number, each in enumerate(tasks[:2]):
        of_all(Embedder(trained, tmp_path / "cache"), each)
        for shard in (tmp_path / "cache").glob("*/*/*/"):
            os.utime(shard, (number, number)) if shard.stat().st_mtime > 100 else None
    both = size()
    of_all(Embedder(trained, tmp_path / "cache", limit=both), tasks[2])
    assert size() <= both
    encoded.clear()
    of_all(Embedder(trained, tmp_path / "cache"), tasks[1])
    kept = len(encoded)
    of_all(Embedder(trained, tmp_path / "cache"), tasks[0])
    assert kept < len(encoded) - kept  # of the older task more is gone
    of_all(Embedder(trained, tmp_path / "cache", limit=both // 2), tasks[0])
    assert size() <= both // 2
    with pytest.raises(EnvironmentUnfit, match="--cache-limit"):
        of_all(Embedder(trained, tmp_path / "cache", limit=1000), tasks[1])


def test_a_limit_leaves_what_is_still_to_be_read(
    trained: ScoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forums are embedded one after the other and read together, and so are the texts that a transform is fitted on."""
    monkeypatch.setitem(feature_store.BLOCK_TEXTS, "cpu", 10)
    forums = [read_collection(write_collection(tmp_path / f"forum{n}", 30, seed=n)) for n in range(3)]
    embedder = Embedder(trained, tmp_path / "cache", limit=20_000)
    fit = embedder.embed_texts(forums[0].queries)
    embedder.release()
    both = [embedder.embed(forum) for forum in forums[:2]]
    for each in (fit, *(each.passages for each in both)):
        assert np.isfinite(each.take(np.arange(len(each))).numpy()).all()
    with pytest.raises(EnvironmentUnfit, match="these texts alone take"):
        embedder.embed(forums[2])
    embedder.release()
    assert len(embedder.embed(forums[2]).passages) == 30
    assert np.isfinite(fit.take(np.arange(len(fit))).numpy()).all()


# Runs `ragcun eval beir` with small slow blocks, and writes down each shard once it is on disk.
SLOWLY = """
import os, sys, time
from ragcun_cli.main import main
from ragcun_cli.model import feature_store
from ragcun_cli.model.vector_store import VectorStore

real = VectorStore._write_shard

def write_and_log(self, keys, vectors):
    time.sleep(0.03)
    real(self, keys, vectors)
    with open(os.environ["SHARD_LOG"], "a") as log:
        log.write(keys.tobytes().hex() + "\\n")

feature_store.BLOCK_TEXTS["cpu"] = 8
VectorStore._write_shard = write_and_log
main()
"""


@pytest.mark.slow
def test_killed_five_times_the_result_is_the_same_and_no_shard_is_made_twice(tmp_path: Path, tiny_bert: Path) -> None:
    task, log = write_collection(tmp_path / "task", 300), tmp_path / "log"
    log.touch()

    def command(name: str) -> tuple[list[str], dict[str, str]]:
        results = ["--results", str(tmp_path / f"results-{name}")]
        arguments = ["eval", "beir", "-m", str(tiny_bert), "-d", str(task), *results]
        variables = {"RAGCUN_CACHE": str(tmp_path / name), "SHARD_LOG": str(log)}
        return [sys.executable, "-c", SLOWLY, *arguments], {**os.environ, **variables}

    choose = random.Random(7)
    for _ in range(5):
        before = len(log.read_text().splitlines())
        arguments, environment = command("killed")
        process = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until = before + choose.randint(3, 12)
        while len(log.read_text().splitlines()) < until and process.poll() is None:
            time.sleep(0.005)
        time.sleep(choose.random() * 0.05)
        assert process.poll() is None, "it was to be killed before its end"
        process.send_signal(signal.SIGKILL)
        process.wait()
    for name in ("killed", "whole"):
        if name == "whole":
            log.unlink()
        arguments, environment = command(name)
        subprocess.run(arguments, env=environment, check=True, capture_output=True)
        shards = log.read_text().splitlines()
        assert len(shards) == len(set(shards)) > 70
    results = [tmp_path / f"results-{name}" / "tiny-bert" for name in ("killed", "whole")]
    one, other = (json.loads((folder / "task.json").read_text()) for folder in results)
    for key in ("metrics", "isotropy", "robustness", "fingerprint"):
        assert one[key] == other[key]
    assert len({gzip.decompress((folder / "task.run.gz").read_bytes()) for folder in results}) == 1
    assert len({(folder / "task.queries.parquet").read_bytes() for folder in results}) == 1
