"""`ragcun encode`: the embeddings of a file's texts, in its order, whole or not at all."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from ragcun_cli.data.texts import read_texts
from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.errors import DataError, ModelError, UsageError
from ragcun_cli.evaluate import embedding_file
from ragcun_cli.evaluate.embedding import Embedder
from ragcun_cli.evaluate.embedding_file import encode_file
from ragcun_cli.evaluate.models import open_model
from ragcun_cli.model import IsotropicGaussianEncoder
from tests.conftest import REPOSITORY, RunCommand
from tests.tiny_models import WORDS, write_collection

TEXTS = [f"w{number} w{number + 1}" for number in range(7)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def test_rows_are_the_texts_embeddings_in_order(
    ragcun: RunCommand, tiny_bert: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_file, "TEXTS_AT_A_TIME", 3)
    expected = IsotropicGaussianEncoder.untouched(str(tiny_bert)).encode(TEXTS)
    done = ragcun("encode", source, "-m", tiny_bert, "-o", tmp_path / "e.npy", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["texts"] == len(TEXTS)
    found = np.load(tmp_path / "e.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)

    assert ragcun("encode", source, "-m", tiny_bert, "-o", tmp_path / "e.parquet").exit_code == 0
    table = parquet.read_table(tmp_path / "e.parquet")
    assert table.column("id").to_pylist() == [str(number) for number in range(len(TEXTS))]
    np.testing.assert_allclose(np.stack(table.column("embedding").to_numpy()), expected, atol=1e-6)


def test_every_format_gives_the_same_texts(tmp_path: Path) -> None:
    records = [{"_id": f"p{number}", "title": "T", "text": text} for number, text in enumerate(TEXTS)]
    lines = "".join(json.dumps(each) + "\n" for each in records)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "c.tsv").write_text("_id\ttitle\ttext\n" + "".join(f"p{n}\tT\t{t}\n" for n, t in enumerate(TEXTS)))
    (tmp_path / "d.csv").write_text("_id,title,text\n" + "".join(f'p{n},T,"{t}"\n' for n, t in enumerate(TEXTS)))
    parquet.write_table(arrow.Table.from_pylist(records), tmp_path / "e.parquet")
    expected = [(f"p{number}", f"T {text}") for number, text in enumerate(TEXTS)]
    for name in ("a.jsonl", "b.jsonl.gz", "c.tsv", "d.csv", "e.parquet"):
        assert list(read_texts(tmp_path / name, None)) == expected, name
        assert [text for _, text in read_texts(tmp_path / name, "title")] == ["T"] * len(TEXTS)


def test_what_cannot_be_encoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": 3}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: 'text' must be text"):
        list(read_texts(tmp_path / "a.jsonl", None))
    (tmp_path / "b.tsv").write_text("id\tbody\n1\tx\n")
    with pytest.raises(UsageError, match="no column 'text'; known: body, id"):
        list(read_texts(tmp_path / "b.tsv", None))
    (tmp_path / "c.txt").write_bytes(b"good\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"c\.txt:2: not UTF-8"):
        list(read_texts(tmp_path / "c.txt", None))
    with pytest.raises(UsageError, match="no such file"):
        list(read_texts(tmp_path / "nowhere.txt", None))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-o", "e.bin"], "expected .npy or .parquet"),
        (["-o", "there.npy"], "the file already exists"),
        (["-o", "e.npy", "--column", "x"], "has no columns"),
        (["-o", "e.npy", "--precision", "bf61"], "did you mean 'bf16'?"),
    ],
)
def test_wrong_wishes_cost_nothing(
    ragcun: RunCommand, tiny_bert: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], expected: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npy").write_text("mine")
    before = sorted(tmp_path.iterdir())
    done = ragcun("encode", source, "-m", tiny_bert, *arguments)
    assert (done.exit_code, expected in " ".join(done.stderr.split())) == (2, True), done.stderr
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.npy").read_text() == "mine"


def test_an_interruption_leaves_no_half_a_file(
    tiny_bert: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_file, "TEXTS_AT_A_TIME", 3)
    encoded = []
    real = IsotropicGaussianEncoder.features_of_tokens

    def interrupted(self: IsotropicGaussianEncoder, tokens: TokenBatch, on_done: object) -> torch.Tensor:
        if len(encoded) == 2:
            raise KeyboardInterrupt
        encoded.append(len(tokens))
        return real(self, tokens, on_done)

    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(IsotropicGaussianEncoder, "features_of_tokens", interrupted)
        with pytest.raises(KeyboardInterrupt):
            encode_file(Embedder(open_model(str(tiny_bert)), cache), source, None, tmp_path / "e.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "texts.txt"]
    done = encode_file(Embedder(open_model(str(tiny_bert)), cache), source, None, tmp_path / "e.npy")
    assert (encoded, done.kept, done.texts) == ([3, 3], 6, 7)  # what was encoded is not encoded again


def test_a_text_that_comes_twice_was_not_in_the_cache_for_that(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "twice.txt").write_text("w1\nw1\nw2\n")
    embedder = Embedder(open_model(str(tiny_bert)), tmp_path / "cache")
    assert encode_file(embedder, tmp_path / "twice.txt", None, tmp_path / "e.npy").kept == 0
    embedder = Embedder(open_model(str(tiny_bert)), tmp_path / "cache")
    assert encode_file(embedder, tmp_path / "twice.txt", None, tmp_path / "f.npy").kept == 3


def test_texts_that_change_while_they_are_encoded_make_no_file(
    tiny_bert: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = embedding_file._parts

    def longer(embedder: Embedder, path: Path, *rest: Any) -> Any:
        path.write_text(path.read_text() + "w9\n")
        return real(embedder, path, *rest)

    monkeypatch.setattr(embedding_file, "_parts", longer)
    with pytest.raises(DataError, match="the texts changed while they were encoded: 7 before, 8 after"):
        encode_file(Embedder(open_model(str(tiny_bert)), tmp_path / "cache"), source, None, tmp_path / "e.npy")
    assert not (tmp_path / "e.npy").exists()


def test_what_an_evaluation_has_embedded_is_not_embedded_again(
    ragcun: RunCommand, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = write_collection(tmp_path / "tiny", 12)
    assert ragcun("eval", "beir", "-m", tiny_bert, "-d", "tiny", "--data-dir", tmp_path).exit_code == 0
    done = ragcun("encode", folder / "corpus.jsonl", "-m", tiny_bert, "-o", "e.npy", "--json")
    assert json.loads(done.stdout)["kept"] == 12
    again = ragcun("encode", folder / "corpus.jsonl", "-m", tiny_bert, "-o", "f.npy")
    assert "12 of 12 embeddings were already in the cache" in again.stderr
    assert (tmp_path / "e.npy").read_bytes() == (tmp_path / "f.npy").read_bytes()


@pytest.mark.parametrize("ending", ["npy", "parquet"])
def test_a_weight_that_is_not_a_number_names_the_text_and_writes_nothing(
    ragcun: RunCommand, tiny_bert: Path, tmp_path: Path, ending: str
) -> None:
    broken = shutil.copytree(tiny_bert, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][5 + WORDS.index("w7")] = torch.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    (tmp_path / "texts.jsonl").write_text('{"_id": "one", "text": "w1"}\n{"_id": "two", "text": "w7"}\n')
    done = ragcun("encode", tmp_path / "texts.jsonl", "-m", broken, "-o", tmp_path / f"e.{ending}")
    assert done.exit_code == 1
    assert "the model's embedding is not finite for 1 of 2 texts, such as text 'two'" in " ".join(done.stderr.split())
    assert not (tmp_path / f"e.{ending}").exists()
    with pytest.raises(ModelError, match="the model's embedding is not finite for 1 of 2 texts, such as 'w3 w7'"):
        IsotropicGaussianEncoder.untouched(str(broken)).encode(["w1", "w3 w7"])


def test_the_documented_example_with_faiss_runs(
    ragcun: RunCommand,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """docs/your-own.md: its code as it is printed there, on another encoder."""
    import faiss

    monkeypatch.chdir(tmp_path)
    corpus = write_collection(tmp_path / "tiny", 12) / "corpus.jsonl"
    assert ragcun("encode", corpus, "-m", tiny_bert, "-o", "corpus.parquet").exit_code == 0
    page = (REPOSITORY / "docs" / "your-own.md").read_text()
    code = page.split("```python\nimport faiss")[1].split("```")[0]
    assert len(code.strip().splitlines()) <= 10
    monkeypatch.setattr(
        "sentence_transformers.SentenceTransformer", lambda name: IsotropicGaussianEncoder.untouched(str(tiny_bert))
    )
    capsys.readouterr()
    exec(f"import faiss{code}", {})
    printed = capsys.readouterr().out
    ids = [json.loads(line)["_id"] for line in corpus.read_text().splitlines()]
    assert any(identity in printed for identity in ids)
    assert faiss.__version__
