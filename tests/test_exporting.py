"""A trained model for others: sentence-transformers, ONNX, the Hub. Each gives the same embeddings."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torch import Tensor

from ragcun_cli.errors import ModelError, UsageError
from ragcun_cli.exporting import require_repository
from ragcun_cli.model import IsotropicGaussianEncoder, onnx
from ragcun_cli.model.folder import load_encoder
from ragcun_cli.model.onnx import INPUTS, export_onnx
from tests.conftest import RunCommand
from tests.tiny_models import write_collection

ADDRESS = "https://huggingface.co/group/encoder"
TEXTS = ["w1 w2 w3", "w4", " ".join(f"w{number}" for number in range(40))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, triples_file: Path, dev_folder: Path) -> Path:
    """A run of two steps."""
    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.train.arm import train_arm

    folder = tmp_path_factory.mktemp("run") / "arm"
    sets = {
        "base_model": tiny_bert, "output_dim": 24, "max_length": 32, "data.train": triples_file,
        "data.dev": dev_folder, "output_dir": folder, "max_steps": 2, "name": "arm",
    }  # fmt: skip
    train_arm(load_recipe("isotropy", [f"{key}={value}" for key, value in sets.items()]))
    return folder


@pytest.fixture
def scored(run: Path, ragcun: RunCommand, tmp_path: Path) -> Path:
    """Results of the run on one collection."""
    collection = write_collection(tmp_path / "tiny", 12)
    done = ragcun("eval", "beir", "-m", run, "-d", collection, "--results", tmp_path / "results")
    assert done.exit_code == 0, done.stderr
    return tmp_path / "results"


def test_a_folder_for_sentence_transformers_and_onnx(
    ragcun: RunCommand, run: Path, scored: Path, tmp_path: Path
) -> None:
    import onnxruntime
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "encoder"
    done = ragcun("export", run, folder, "--onnx", "--results", scored, "--licence", "cc-by-nc-4.0", "--json")
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["onnx_difference"] <= 1e-4
    assert (said["results"], said["address"]) == (1, None)
    ours = load_encoder(run / "best_model").encode(TEXTS)
    np.testing.assert_allclose(SentenceTransformer(str(folder), device="cpu").encode(TEXTS), ours, atol=1e-5)

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    assert [each.shape for each in session.get_inputs()] == [["batch", "tokens"]] * 2
    tokens = load_encoder(folder).tokenize(TEXTS)
    for number in range(len(TEXTS)):  # each alone: another number of texts, another length
        ids = tokens.select(np.array([number])).ids[None, :].astype(np.int64)
        (values,) = session.run(None, dict(zip(INPUTS, (ids, np.ones_like(ids)), strict=True)))
        np.testing.assert_allclose(values[0], ours[number], atol=1e-4)


def test_the_card_says_what_was_measured_and_what_it_was_trained_on(
    ragcun: RunCommand, run: Path, scored: Path, tmp_path: Path
) -> None:
    done = ragcun("export", run, tmp_path / "a", "--results", scored, "--licence", "cc-by-nc-4.0")
    assert done.exit_code == 0, done.stderr
    _, front, body = (tmp_path / "a" / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert (metadata["license"], metadata["library_name"]) == ("cc-by-nc-4.0", "sentence-transformers")
    result = json.loads((scored / "arm" / "tiny.json").read_text())
    assert f"| tiny | test | {100 * result['metrics']['ndcg@10']:.2f} |" in body
    for expected in (
        "| lambda_isotropy | 1.0 |",
        "These are the weights after step 2",
        "cut at 32 tokens",
        "triples.jsonl",
    ):
        assert expected in body
    bare = ragcun("export", run, tmp_path / "b", "--results", tmp_path / "nowhere")
    assert bare.exit_code == 0
    card = (tmp_path / "b" / "README.md").read_text()
    assert "None were measured, so none are claimed." in card
    assert "license:" not in card


def test_results_of_other_weights_do_not_get_into_the_card(
    ragcun: RunCommand, run: Path, scored: Path, tmp_path: Path
) -> None:
    identity = json.loads((scored / "arm" / "model.json").read_text())["identity"]
    for path in scored.glob("arm/*.json"):
        path.write_text(path.read_text().replace(identity, "sha256:" + "0" * 64))
    ragcun("export", run, tmp_path / "a", "--results", scored)
    assert "None were measured" in (tmp_path / "a" / "README.md").read_text()


def test_mpnet_too(tiny_mpnet: Path, tmp_path: Path) -> None:
    encoder = IsotropicGaussianEncoder.from_base(str(tiny_mpnet), output_dim=8, max_length=24)
    assert export_onnx(encoder, tmp_path) <= 1e-4


def test_a_graph_with_other_values_is_refused(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = onnx._Whole.forward

    def spoiled(self: onnx._Whole, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return forward(self, input_ids, attention_mask) + 0.01

    monkeypatch.setattr(onnx._Whole, "forward", spoiled)
    with pytest.raises(ModelError, match=r"differ by 0\.01"):
        export_onnx(IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=8, max_length=24), tmp_path)


def test_what_is_there_is_not_lost(ragcun: RunCommand, run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    refused = ragcun("export", run, mine, "--overwrite")
    assert (refused.exit_code, "is not an exported model" in refused.stderr) == (2, True)
    assert (mine / "thesis.tex").exists()
    assert ragcun("export", run, tmp_path / "a").exit_code == 0
    assert ragcun("export", run, tmp_path / "a").exit_code == 2
    assert ragcun("export", run, tmp_path / "a", "--overwrite").exit_code == 0


@pytest.mark.parametrize("model", ["nowhere", "embedded:all-MiniLM-L6-v2"])
def test_only_what_was_trained_here_is_exported(ragcun: RunCommand, tmp_path: Path, model: str) -> None:
    done = ragcun("export", model, tmp_path / "a")
    assert (done.exit_code, "neither a run folder nor a model folder" in done.stderr) == (2, True)


class Hub(http.server.BaseHTTPRequestHandler):
    """The calls of an upload: make a repository, ask how each file is to come, commit."""

    asked: list[tuple[str, Any]]
    refuses: bool
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refuses or self.headers["Authorization"] != "Bearer hf_secret":
            return self._answer(403, {"error": "You have no right to write there"})
        if self.path.endswith("/repos/create"):
            self.asked.append(("create", json.loads(body)))
            return self._answer(200, {"url": ADDRESS, "name": "group/encoder"})
        if "/preupload/" in self.path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if self.path.endswith("/validate-yaml"):  # the card's metadata
            return self._answer(200, {"errors": [], "warnings": []})
        lines = [json.loads(line) for line in body.splitlines()]
        self.asked.append(("commit", lines))
        return self._answer(
            200,
            {
                "success": True,
                "commitOid": "b" * 40,
                "commitUrl": "https://huggingface.co/group/encoder/commit/b",
                "hookOutput": "",
            },
        )

    def do_GET(self) -> None:
        if "/tree/" in self.path:  # what an earlier upload left: of these, old weights go
            old = ("model.onnx", ".gitattributes")
            self._answer(200, [{"type": "file", "path": name, "size": 1, "oid": "c" * 40} for name in old])
            return
        self._answer(200, {"id": "group/encoder", "sha": "a" * 40, "siblings": [], "private": True, "tags": []})

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("OneHub", (Hub,), {"asked": [], "refuses": False})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield handler
    server.shutdown()


def test_a_push_is_one_commit_into_a_private_repository(
    ragcun: RunCommand, run: Path, tmp_path: Path, hub: type[Hub]
) -> None:
    done = ragcun("export", run, tmp_path / "a", "--push", "group/encoder")
    assert done.exit_code == 0, done.stderr
    (_, made), (_, commit) = hub.asked
    assert (made["name"], made["organization"], made["visibility"]) == ("encoder", "group", "private")
    files = {each["value"]["path"]: each["value"]["content"] for each in commit if each["key"] == "file"}
    written = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert {name: base64.b64decode(content) for name, content in files.items()} == {
        path.relative_to(tmp_path / "a").as_posix(): path.read_bytes() for path in written
    }
    assert [each["value"]["path"] for each in commit if each["key"] == "deletedFile"] == ["model.onnx"]
    assert b'SentenceTransformer("group/encoder")' in base64.b64decode(files["README.md"])


def test_a_hub_that_refuses_is_an_error_with_its_cure(
    ragcun: RunCommand, run: Path, tmp_path: Path, hub: type[Hub]
) -> None:
    hub.refuses = True
    done = ragcun("export", run, tmp_path / "a", "--push", "group/encoder")
    assert done.exit_code == 4
    assert "HF_TOKEN" in done.stderr, done.stderr
    assert (tmp_path / "a" / "README.md").is_file()  # what was exported stays
    assert "hf_secret" not in done.stderr


def test_a_repository_has_an_owner(ragcun: RunCommand, run: Path, tmp_path: Path) -> None:
    done = ragcun("export", run, tmp_path / "a", "--push", "encoder")
    assert (done.exit_code, (tmp_path / "a").exists()) == (2, False)
    with pytest.raises(UsageError, match="OWNER/NAME"):
        require_repository("../x")
