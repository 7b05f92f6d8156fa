"""Fetching a base model: the real client against a local server that answers as the hub does."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

COMMIT = "a" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """The three calls that a download makes: the model's list of files, HEAD and GET of each file."""

    models: ClassVar[dict[str, Path]] = {}
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0].lstrip("/")
        for name, folder in self.models.items():
            if path.startswith(f"api/models/{name}"):
                files = sorted(file for file in folder.rglob("*") if file.is_file())
                siblings = [{"rfilename": file.relative_to(folder).as_posix()} for file in files]
                listing = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False}
                tree = [
                    {"type": "file", "path": each["rfilename"], "size": file.stat().st_size, "oid": "0" * 40}
                    for each, file in zip(siblings, files, strict=True)
                ]
                return self._send(json.dumps(tree if "/tree/" in path else listing).encode(), body)
            if path.startswith(f"{name}/resolve/"):
                file = folder / path.split("/resolve/", 1)[1].split("/", 1)[1]
                if file.is_file():
                    return self._send(file.read_bytes(), body)
        return self._send(b'{"error": "Repository not found"}', body, 404, {"X-Error-Code": "RepoNotFound"})

    def _send(self, content: bytes, body: bool, status: int = 200, extra: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tiny_bert: Path, tmp_path: Path) -> Iterator[str]:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"\x80")
    Hub.models = {"org/tiny-bert": tiny_bert, "org/pickled": pickled}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def locate(name: str, endpoint: str, cache: Path) -> dict[str, str]:
    """In a process of its own: the hub's client reads its settings when it is imported."""
    program = (
        "import json, sys\n"
        "from ragcun_cli.errors import RagcunError\n"
        "from ragcun_cli.model.sources import locate_model\n"
        "try:\n"
        "    found = locate_model(sys.argv[1])\n"
        "    print(json.dumps({'folder': str(found.folder), 'identity': found.identity}))\n"
        "except RagcunError as error:\n"
        "    print(json.dumps({'error': error.message, 'hint': error.hint, 'code': int(error.exit_code)}))\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", program, name], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    answer: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_a_model_is_fetched_and_known_by_its_commit(hub: str, tmp_path: Path, tiny_bert: Path) -> None:
    found = locate("org/tiny-bert", hub, tmp_path / "cache")
    assert found["identity"] == f"commit:{COMMIT}"
    weights = Path(found["folder"]) / "model.safetensors"
    assert weights.read_bytes() == (tiny_bert / "model.safetensors").read_bytes()


def test_a_fetched_model_needs_no_hub_again(hub: str, tmp_path: Path) -> None:
    first = locate("org/tiny-bert", hub, tmp_path / "cache")
    assert locate("org/tiny-bert", "http://127.0.0.1:9", tmp_path / "cache") == first


def test_a_model_that_is_not_there(hub: str, tmp_path: Path) -> None:
    answer = locate("org/nothing", hub, tmp_path / "cache")
    assert "neither a folder here nor a model on the hub" in answer["error"]
    assert answer["code"] == 2


def test_a_model_with_pickled_weights_only_is_refused_unread(hub: str, tmp_path: Path) -> None:
    answer = locate("org/pickled", hub, tmp_path / "cache")
    assert "no model.safetensors" in answer["error"]
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    answer = locate("org/tiny-bert", "http://127.0.0.1:9", tmp_path / "cache")
    assert "the Hugging Face hub cannot be reached" in answer["error"]
    assert "--set base_model=FOLDER" in answer["hint"]
    assert answer["code"] == 4
