"""Dev and test sets are kept out of the training data: by content, with counts, and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ragcun_cli.data.exclusion import Excluded, ExclusionCounts, read_excluded, without
from ragcun_cli.data.triples.prepared import open_triples
from ragcun_cli.errors import UsageError
from tests.conftest import RunCommand
from tests.retrieval_tasks import write_task
from tests.triple_tables import rows_of, table_of

ROWS = [
    ("what is a w1?", "p one", ["n"]),
    ("something else", "the answer", []),  # an answer of the dev set
    ("What IS a W2", "p two", ["n", "the answer"]),  # its query, but for case and punctuation
    ("fine", "a passage of its corpus that answers nothing", ["the answer"]),
    ("what is a w2", "the answer", ["m", "k"]),
]


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    passages = {"a": "the answer", "b": "a passage of its corpus that answers nothing", "c": "trained"}
    folder = write_task(
        tmp_path / "dev", passages, {"q": "what is a w2", "t": "of train"}, {"q": {"a": 1, "b": 0}}, "dev"
    )
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nt\tc\t1\n")
    return folder


def test_triples_with_a_query_or_an_answer_go_and_all_others_stay(dev: Path, tmp_path: Path) -> None:
    excluded = read_excluded([str(dev)], tmp_path, "data.exclude")
    assert excluded is not None
    assert excluded.names == ("dev (dev)",)  # what its train split has may be trained on
    clean, counts = without(table_of(ROWS), excluded)
    assert counts == ExclusionCounts(triples=3, by_query=2, by_positive=2)
    assert rows_of(clean) == [ROWS[0], ROWS[3]]
    assert clean.texts == table_of(ROWS).texts  # and their numbers: what was tokenised stays so
    nothing = table_of([("x", "y", ["z"])])
    assert without(nothing, excluded) == (nothing, ExclusionCounts())
    assert read_excluded([], tmp_path, "data.exclude") is None
    with pytest.raises(UsageError, match=r"--exclude: nowhere"):
        read_excluded(["nowhere"], tmp_path, "--exclude")


def test_the_digest_is_of_what_is_excluded(dev: Path, tmp_path: Path) -> None:
    before = read_excluded([str(dev)], tmp_path, "data.exclude")
    queries = dev / "queries.jsonl"
    queries.write_text(queries.read_text().replace("w2", "w3"))
    after = read_excluded([str(dev)], tmp_path, "data.exclude")
    assert before is not None
    assert after is not None
    assert before.sha256 != after.sha256
    assert Excluded.of({}).has_query("what is a w2") is False


def write_rows(path: Path) -> Path:
    keys = ("query", "positive", "negatives")
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in ROWS))
    return path


def test_data_check_writes_the_clean_triples_and_their_provenance(
    ragcun: RunCommand, dev: Path, tmp_path: Path
) -> None:
    source, clean = write_rows(tmp_path / "mine.jsonl"), tmp_path / "clean.jsonl"
    command = ["data", "check", source, "--dev", dev, "--no-lengths", "--write", clean]
    done = ragcun(*command)
    assert done.exit_code == 0, done.stderr
    assert "2 triples; 3 triples excluded (2 by query, 2 by positive)" in done.stderr
    assert rows_of(open_triples(clean)[0]) == [ROWS[0], ROWS[3]]
    record = json.loads((tmp_path / "clean.jsonl.provenance.json").read_text())
    assert record["excluded"]["triples"] == 3
    assert record["excluded"]["collections"] == ["dev (dev)"]
    (report,) = json.loads(ragcun("data", "check", clean, "--dev", dev, "--no-lengths", "--json").stdout)
    # Passages of its corpus may stay, as negatives for one.
    assert [each["what"] for each in report["findings"]] == ["passages of the dev set that are training passages"]
    assert ragcun(*command).exit_code == 2  # the file is there
    assert ragcun(*command, "--overwrite").exit_code == 0


def test_two_sets_of_one_name_are_both_excluded(ragcun: RunCommand, tmp_path: Path) -> None:
    one = write_task(tmp_path / "a" / "own", {"p": "x"}, {"q": "first"}, {"q": {"p": 1}})
    two = write_task(tmp_path / "b" / "own", {"p": "y"}, {"q": "second"}, {"q": {"p": 1}})
    excluded = read_excluded([str(one), str(two)], tmp_path, "data.exclude")
    assert excluded is not None
    assert (excluded.has_query("first"), excluded.has_query("second")) == (True, True)
    assert excluded.names == ("own (test)", f"{two} (test)")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"query": each, "positive": "z"}) + "\n" for each in ("first", "second", "third"))
    )
    clean = tmp_path / "clean.jsonl"
    done = ragcun("data", "check", rows, "--against", f"{one},{two}", "--no-lengths", "--write", clean)
    assert done.exit_code == 0, done.stderr
    assert [json.loads(line)["query"] for line in clean.read_text().splitlines()] == ["third"]


def test_what_has_no_triples_to_write_is_refused(ragcun: RunCommand, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_task(tmp_path / "forums" / name, {"p": "x"}, {"q": "y"}, {"q": {"p": 1}}, "train")
    tested = write_task(tmp_path / "tested", {"p": "x"}, {"q": "y"}, {"q": {"p": 1}})
    clean = tmp_path / "clean.jsonl"
    for source, said in ((tested, "has no train split"), (tmp_path / "forums", "contains 2 collections")):
        done = ragcun("data", "check", source, "--no-lengths", "--write", clean)
        assert done.exit_code == 2
        assert said in " ".join(done.stderr.split())
    assert not clean.exists()


def test_mining_leaves_out_what_is_excluded(ragcun: RunCommand, dev: Path, tmp_path: Path) -> None:
    passages = {"x": "the answer", "y": "another", "z": "a third"}
    queries = {"1": "what is a w2", "2": "new", "3": "third"}
    own = write_task(tmp_path / "own", passages, queries, {"1": {"y": 1}, "2": {"x": 1}, "3": {"z": 1}}, "train")
    out = tmp_path / "mined.jsonl"
    done = ragcun("data", "mine", own, "--pick", "corpus", "--exclude", dev, "-o", out, "--json")
    assert json.loads(done.stdout)["excluded"] == 2
    assert [json.loads(line)["query"] for line in out.read_text().splitlines()] == ["third"]
    record = json.loads((tmp_path / "mined.jsonl.provenance.json").read_text())
    assert record["excluded"]["collections"] == ["dev (dev)"]
    assert record["mined"]["excluded"] == 2


def test_training_leaves_it_out_records_it_and_resumes_on_the_same_only(
    ragcun: RunCommand, small_recipe: Path, tmp_path: Path, dev_folder: Path, triples_file: Path
) -> None:
    first = json.loads(triples_file.read_text().splitlines()[0])
    held = write_task(tmp_path / "held", {"a": first["positive"], "b": "w1"}, {"q": "w299 w1"}, {"q": {"a": 1}})
    settings = ["--set", f"data.exclude=[{held}, {dev_folder}]", "--set", "max_steps=2", "--set", "save_every=1"]
    done = ragcun("train", "-r", small_recipe, *settings)
    assert done.exit_code == 0, done.stderr
    assert "1 triple excluded (0 by query, 1 by positive)" in done.stderr
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (environment["plan"]["triples_excluded"], environment["plan"]["triples"]) == (1, 79)
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["data"]["exclude"][0] == str(held)
    (held / "queries.jsonl").write_text('{"_id": "q", "text": "w298 w1"}\n')
    (tmp_path / "run" / "status.json").unlink()
    refused = ragcun("train", "-r", small_recipe, *settings, "--resume")
    assert refused.exit_code == 2
    assert "these have changed since the run began: excluded_sha256" in " ".join(refused.stderr.split())


def test_what_is_trained_on_is_said_before_the_start(ragcun: RunCommand, small_recipe: Path, tmp_path: Path) -> None:
    rows = [{"query": f"w{n % 20}", "positive": f"w{n} w{n + 1} w{n + 2}"} for n in range(40)]
    (tmp_path / "forty.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["--set", f"data.train={tmp_path / 'forty.jsonl'}", "--set", "gradient_accumulation_steps=3",
                "--set", "max_steps=null", "--set", "epochs=2", "--set", "eval_every=null"]  # fmt: skip
    planned = ragcun("train", "-r", small_recipe, *settings, "--dry-run")
    assert planned.exit_code == 0, planned.stderr
    sentence = "an epoch trains on 24 of 40 triples: 16 do not fill a step of 24 (batch_size 8 x"
    assert sentence in planned.stdout
    assert "share a batch with another positive of their query, which serves as its negative" in planned.stdout
    assert "each epoch leaves out different ones" in planned.stdout
    once = ragcun("train", "-r", small_recipe, *settings, "--set", "epochs=1", "--dry-run")
    assert sentence in once.stdout
    assert "each epoch" not in once.stdout
    plain = ["--set", "gradient_accumulation_steps=1", "--dry-run"]
    short = ragcun("train", "-r", small_recipe, *settings, *plain, "--set", "max_steps=3")
    assert "max_steps ends the run within its first epoch: it trains on 24 of 40 triples" in short.stdout
    whole = ragcun("train", "-r", small_recipe, *settings, *plain, "--set", "max_steps=5")
    assert "max_steps ends the run" not in whole.stdout
    done = ragcun("train", "-r", small_recipe, *settings)
    assert done.exit_code == 0, done.stderr
    assert sentence in done.stderr
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in logged if "epoch" in line] == [0.6, 1.2]
    checked = ragcun("data", "check", tmp_path / "forty.jsonl", "--no-lengths", "--batch-size", "16", "--json")
    (report,) = json.loads(checked.stdout)
    assert report["counts"]["triples in an epoch's whole batches of 16"] == 32
    assert any("another positive in the same batch of 16" in each["what"] for each in report["findings"])


def test_an_answer_without_its_title_is_an_answer_too(tmp_path: Path) -> None:
    """Pairs are often made of the text alone."""
    folder = write_task(tmp_path / "own", {"p": "the answer", "o": "another"}, {"q": "why"}, {"q": {"p": 1}})
    (folder / "corpus.jsonl").write_text(
        '{"_id": "p", "title": "A title", "text": "the answer"}\n{"_id": "o", "title": "", "text": "another"}\n'
    )
    excluded = read_excluded([str(folder)], tmp_path, "data.exclude")
    assert excluded is not None
    rows = [("a", "the answer", []), ("b", "A title the answer", []), ("c", "another", []), ("d", "A title", [])]
    left, counts = without(table_of(rows), excluded)
    assert [query for query, _, _ in rows_of(left)] == ["c", "d"]
    assert counts == ExclusionCounts(2, 0, 2)


def test_mining_that_would_leave_nothing_is_refused_before_it_begins(
    tmp_path: Path, ragcun: RunCommand, tiny_bert: Path
) -> None:
    folder = write_task(tmp_path / "own", {"p": "x", "o": "y"}, {"q": "why"}, {"q": {"p": 1}})
    done = ragcun(
        *("data", "mine", folder, "-m", tiny_bert, "-o", tmp_path / "m.jsonl"),
        *("--ranks", "1-1", "--split", "test", "--exclude", folder),
    )
    assert done.exit_code == 1
    assert "leaves no pair of this collection" in " ".join(done.stderr.replace("│", "").split())
    assert not (tmp_path / "m.jsonl").exists()
