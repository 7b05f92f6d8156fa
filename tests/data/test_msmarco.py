"""MS MARCO's training sets: from a hub, a mirror or a tar to triples and a dev set that training never sees."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet
import pytest

from ragcun_cli.data import msmarco
from ragcun_cli.data.collection import read_collection
from ragcun_cli.data.exclusion import normalised_words
from ragcun_cli.data.msmarco import is_held_out, prepare_training_set
from ragcun_cli.data.registry import TRAINING
from ragcun_cli.data.sources import dev_collection, training_file
from ragcun_cli.data.triples.prepared import open_triples
from ragcun_cli.errors import DataError, UsageError
from tests.conftest import RunCommand
from tests.triple_tables import rows_of

ROWS = [
    (f"what is thing number {n}?", f"Passage {n % 900} about it.", f"Passage {(n * 7 + 1) % 900} about it.")
    for n in range(1500)
]


def triplets(rows: Sequence[tuple[str, str, str | None]]) -> pa.Table:
    return pa.table(dict(zip(("query", "positive", "negative"), zip(*rows, strict=True), strict=True)))


def judged(rows: list[tuple[str, str, str]]) -> pa.Table:
    """ms_marco's shape: ten passages a query, one of them selected; every tenth query has none."""
    records = []
    for number, (query, positive, negative) in enumerate(rows):
        texts = [f"{negative} {place}" for place in range(9)]
        texts.insert(number % 9, positive)
        chosen = [int(place == number % 9 and number % 10 != 0) for place in range(10)]
        records.append({"query": query, "passages": {"is_selected": chosen, "passage_text": texts, "url": [""] * 10}})
    return pa.Table.from_pylist(records)


def in_parquet(table: pa.Table, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)
    return path


def test_dev_queries_and_passages_are_in_no_training_row(tmp_path: Path) -> None:
    source = in_parquet(triplets(ROWS), tmp_path / "source.parquet")
    prepare_training_set(TRAINING["msmarco"], [source], tmp_path / "data")
    rows = rows_of(open_triples(training_file("msmarco", tmp_path / "data"))[0])
    dev = read_collection(dev_collection("msmarco", tmp_path / "data"), preferred=("dev",))
    assert dev.split == "dev"
    assert 5 < len(dev.queries) < 40
    assert set(dev.queries) == {query for query, _, _ in ROWS if is_held_out(query)}
    assert not set(dev.queries) & {query for query, _, _ in rows}
    in_training = {text for _, positive, negatives in rows for text in (positive, *negatives)}
    assert not set(dev.corpus.texts()) & in_training
    expected = [
        (query, positive, [negative])
        for query, positive, negative in ROWS
        if not is_held_out(query) and not {positive, negative} & set(dev.corpus.texts())
    ]
    assert sorted(rows) == sorted(expected)
    by_query = {query: (positive, negative) for query, positive, negative in ROWS}
    for query_id, query in zip(dev.query_ids, dev.queries, strict=True):
        positive, negative = by_query[query]
        relevant = [dev.corpus.row_of(each) for each in dev.qrels[query_id]]
        assert dev.corpus.texts(pa.array(relevant).to_numpy()) == [positive]
        assert negative in dev.corpus.texts()


def test_the_same_queries_are_held_out_whatever_they_are_written_like() -> None:
    held_out = [query for query, _, _ in ROWS if is_held_out(query)]
    assert all(is_held_out(f"  {query.upper().replace('?', ' !')} ") for query in held_out)
    assert normalised_words("A  b-C?") == "a b c"
    assert normalised_words("???") == "???"


def test_ms_marcos_own_shape(tmp_path: Path) -> None:
    source = in_parquet(judged(ROWS), tmp_path / "source.parquet")
    folder = prepare_training_set(TRAINING["msmarco-v1.1"], [source], tmp_path / "data")
    rows = rows_of(open_triples(folder / "train.parquet")[0])
    of_query = {query: (positive, negative) for query, positive, negative in ROWS}
    assert len(rows) > 1000
    for query, positive, negatives in rows:
        assert positive == of_query[query][0]
        assert len(negatives) == 1
        assert negatives[0].startswith(of_query[query][1])
    assert len({negatives[0][-1] for _, _, negatives in rows}) == 9  # not always the first of the list
    again = prepare_training_set(TRAINING["msmarco-v1.1"], [source], tmp_path / "other")
    assert (again / "train.parquet").read_bytes() == (folder / "train.parquet").read_bytes()


def test_the_official_tar_is_sampled_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msmarco, "SMALL_TRIPLES", 1_000_000)  # so that every second line is taken
    content = "".join("\t".join(row) + "\n" for row in ROWS).encode()
    path = tmp_path / "triples.train.small.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("triples.train.small.tsv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    folder = prepare_training_set(TRAINING["msmarco-small"], [path], tmp_path / "data")
    queries = {query for query, _, _ in rows_of(open_triples(folder / "train.parquet")[0])}
    assert queries <= {query for query, _, _ in ROWS[::2]}
    assert len(queries) > 400
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="damaged or incomplete"):
        prepare_training_set(TRAINING["msmarco-small"], [path], tmp_path / "cut")
    assert not (tmp_path / "cut" / "triples" / "msmarco-small").exists()


def test_files_that_are_something_else(tmp_path: Path) -> None:
    other = in_parquet(pa.table({"query": ["q"], "positive": ["p"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="columns query, positive and negative"):
        prepare_training_set(TRAINING["msmarco"], [other], tmp_path / "data")
    with pytest.raises(DataError, match="not an ms_marco file"):
        prepare_training_set(TRAINING["msmarco-v1.1"], [other], tmp_path / "data")
    few = in_parquet(triplets([row for row in ROWS if not is_held_out(row[0])]), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="too few queries"):
        prepare_training_set(TRAINING["msmarco"], [few], tmp_path / "data")


def test_a_set_is_made_again_of_other_sources_or_if_it_is_damaged(tmp_path: Path) -> None:
    source = in_parquet(triplets(ROWS), tmp_path / "source.parquet")
    folder = prepare_training_set(TRAINING["msmarco"], [source], tmp_path / "data")
    first = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").write_bytes(first[:-1])
    prepare_training_set(TRAINING["msmarco"], [source], tmp_path / "data")
    assert (folder / "train.parquet").read_bytes() == first
    in_parquet(triplets([(f"other {q}", p, n) for q, p, n in ROWS]), source)
    prepare_training_set(TRAINING["msmarco"], [source], tmp_path / "data")
    queries = {query for query, _, _ in rows_of(open_triples(folder / "train.parquet")[0])}
    assert all(query.startswith("other ") for query in queries)


def test_two_processes_make_a_set_once(tmp_path: Path) -> None:
    source = in_parquet(triplets(ROWS), tmp_path / "source.parquet")
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from ragcun_cli.data import msmarco\n"
        "from ragcun_cli.data.registry import TRAINING\n"
        "real = msmarco._write_dev\n"
        "def slow(*arguments):\n"
        "    time.sleep(3)\n"
        "    real(*arguments)\n"
        "msmarco._write_dev = slow\n"
        "msmarco.prepare_training_set(TRAINING['msmarco'], [Path(sys.argv[1])], Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "data")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("making" in each for each in said) == 1
    folder = tmp_path / "data" / "triples" / "msmarco"
    assert {path.name for path in folder.iterdir()} == {"train.parquet", "dev", "manifest.json"}


def test_rows_without_a_negative_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = [(q, p, n if place % 2 else None) for place, (q, p, n) in enumerate(ROWS)]
    source = in_parquet(triplets(half), tmp_path / "source.parquet")
    prepare_training_set(TRAINING["msmarco"], [source], tmp_path / "data")
    said = capsys.readouterr().err
    assert "750 broken rows left out" in said
    assert "source.parquet: row without a negative" in said


def test_training_on_what_is_not_here_says_what_brings_it(tmp_path: Path, ragcun: RunCommand) -> None:
    for key, source, command in (
        ("data.train", "msmarco-v1.1", "ragcun data download msmarco-v1.1"),
        ("data.train", "fiqa", "ragcun data download fiqa"),
        ("data.train", "bioasq", "ragcun data import bioasq --from FOLDER"),
    ):
        sets = ["--set", f"{key}={source}", "--set", f"data.folder={tmp_path}"]
        done = ragcun("train", "--recipe", "isotropy", *sets)
        assert done.exit_code == 2
        assert command in " ".join(done.stderr.split())
    with pytest.raises(UsageError, match=r"data\.dev: msmarco is not in"):
        dev_collection("msmarco", tmp_path)
    with pytest.raises(UsageError, match="did you mean 'msmarco'"):
        training_file("msmarko", tmp_path)


class Hub(http.server.BaseHTTPRequestHandler):
    """The two calls that a dataset's file takes: its length and sha256, and the file, on another server."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[tuple[str, str | None]]] = []
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append((self.path, self.headers.get("Authorization")))
        found = [
            {
                "type": "file", "path": name, "size": len(content), "oid": "0" * 40,
                "lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134},
            }
            for name, content in self.files.items()
            if name.rsplit("/", 1)[-1] in body
        ]  # fmt: skip
        self._send(json.dumps(found).encode(), {"Content-Type": "application/json"})

    def do_GET(self) -> None:
        if "datasets" not in self.path:  # the client's own business
            self.send_error(404)
            return
        self.asked.append((self.path, self.headers.get("Authorization")))
        if self.path.startswith("/datasets/"):
            self.send_response(302)
            # Another name of this machine: a token must not go there.
            self.send_header("Location", f"http://localhost:{self.server.server_port}/cdn{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = next(content for name, content in self.files.items() if self.path.endswith(name))
        self._send(content, {"ETag": '"cdn"'})

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    halves = [in_parquet(triplets(part), tmp_path / "hub" / f"{n}") for n, part in enumerate((ROWS[:800], ROWS[800:]))]
    Hub.files = {f"triplet/train-0000{n}-of-00002.parquet": half.read_bytes() for n, half in enumerate(halves)}
    Hub.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


PROGRAM = """
import dataclasses
from ragcun_cli import main
from ragcun_cli.data import registry
known = registry.TRAINING["msmarco"]
# What the local hub has is not what was published.
files = tuple(dataclasses.replace(each, digest=None) for each in known.files)
registry.TRAINING["msmarco"] = dataclasses.replace(known, files=files)
main.main()
"""


def ragcun_with(endpoint: str, home: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's client reads its settings when it is imported."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "NO_PROXY": "127.0.0.1,localhost",
        **more,
    }
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_msmarco_from_a_hub_and_from_its_copy(hub: str, tmp_path: Path) -> None:
    data, home = tmp_path / "data", tmp_path / "home"
    done = ragcun_with(hub, home, "data", "download", "msmarco", "--data-dir", data, HF_TOKEN="hf_secret")
    assert done.returncode == 0, done.stderr
    assert "0.0 MB. Licence: research, not commercial." in done.stderr
    to_hub = [token for path, token in Hub.asked if not path.startswith("/cdn")]
    to_cdn = [token for path, token in Hub.asked if path.startswith("/cdn")]
    assert set(to_hub) == {"Bearer hf_secret"}
    assert to_cdn == [None, None]
    assert {path.name for path in (data / "triples" / "msmarco").iterdir()} == {"train.parquet", "dev", "manifest.json"}
    entries = json.loads(ragcun_with(hub, home, "data", "list", "--data-dir", data, "--json").stdout)
    assert entries[0]["name"] == "msmarco"
    assert entries[0]["state"] == "verified"
    Hub.asked.clear()
    again = ragcun_with(hub, home, "data", "download", "msmarco", "--data-dir", data)
    assert again.returncode == 0, again.stderr
    assert Hub.asked == []  # what is here and verified is not asked for
    # Another machine, without a network: the data folder of this one is a mirror.
    copy = tmp_path / "copy"
    mirrored = ragcun_with(
        "http://127.0.0.1:9", home, "data", "download", "msmarco", "--data-dir", copy, "--mirror", data
    )
    assert mirrored.returncode == 0, mirrored.stderr
    assert (copy / "triples" / "msmarco" / "train.parquet").read_bytes() == (
        data / "triples" / "msmarco" / "train.parquet"
    ).read_bytes()
    (data / "triples" / "msmarco" / "train.parquet").write_bytes(b"else")
    damaged = json.loads(ragcun_with(hub, home, "data", "list", "--data-dir", data, "--json").stdout)
    assert damaged[0]["state"] != "verified"
    source = next((data / "downloads" / "msmarco").glob("*00001*.parquet"))
    source.write_bytes(source.read_bytes()[:-1] + b"x")
    spoiled = ragcun_with(hub, home, "data", "download", "msmarco", "--data-dir", tmp_path / "third", "--mirror", data)
    assert spoiled.returncode == 1
    assert "twice" in spoiled.stderr


def test_what_the_hubs_own_cache_has_is_taken_from_there(hub: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    repository = "datasets--sentence-transformers--msmarco-msmarco-distilbert-base-tas-b"
    commit = TRAINING["msmarco"].files[0].address.split("@")[1].split("/")[0]
    root = home / "hub" / repository
    for name, content in Hub.files.items():
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = root / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    done = ragcun_with("http://127.0.0.1:9", home, "data", "download", "msmarco", "--data-dir", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert Hub.asked == []


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    done = ragcun_with("http://127.0.0.1:9", tmp_path, "data", "download", "msmarco", "--data-dir", tmp_path / "data")
    assert done.returncode == 4
    assert "cannot be reached" in done.stderr
    assert "--mirror" in done.stderr
