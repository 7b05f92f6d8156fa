"""`data mine`: near passages that are not known to be relevant, in the ranks and beyond the margin asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.collection import Collection, read_collection
from ragcun_cli.evaluate import evaluator, mining
from ragcun_cli.evaluate.evaluator import EvaluationSettings, ModelToScore
from ragcun_cli.evaluate.mining import Mined, Mining, mine
from ragcun_cli.model import IsotropicGaussianEncoder
from tests.conftest import RunCommand
from tests.tiny_models import write_collection


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    folder = write_collection(tmp_path / "tiny", 30, split="train")
    corpus = (folder / "corpus.jsonl").read_text().splitlines()
    queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    # The first query's passage again, its own text, and a second relevant passage for the second query.
    twin = {**json.loads(corpus[0]), "_id": "twin"}
    own = {"_id": "own", "title": "", "text": queries[0]["text"]}
    (folder / "corpus.jsonl").write_text("\n".join([*corpus, json.dumps(twin), json.dumps(own)]) + "\n")
    qrels = folder / "qrels" / "train.tsv"
    qrels.write_text(qrels.read_text() + "q1\td5\t1\nq2\td6\t0\nq3\tnowhere\t1\n")
    return read_collection(folder, "train")


def mined(
    collection: Collection, model: Path | None, asked: Mining, output: Path
) -> tuple[Mined, list[dict[str, Any]]]:
    result = mine(collection, None if model is None else ModelToScore(str(model)), EvaluationSettings(), asked, output)
    return result, [json.loads(line) for line in output.read_text().splitlines()]


def by_distance(
    collection: Collection, model: Path, query: int
) -> tuple[list[int], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Corpus rows by distance from a query, in plain float64."""
    encoder = IsotropicGaussianEncoder.untouched(str(model))
    passages = encoder.encode(collection.corpus.texts()).astype(np.float64)
    asked = encoder.encode([collection.queries[query]]).astype(np.float64)
    distances = np.linalg.norm(passages - asked, axis=1)
    order = np.argsort(distances, kind="stable").tolist()
    texts = collection.corpus.texts()
    # Of passages with one text only the first is looked at, except by those that a query must not get.
    distinct = [row for place, row in enumerate(order) if texts[row] not in {texts[each] for each in order[:place]}]
    return distinct, distances


def relevant_to(collection: Collection, query: int) -> set[int]:
    rows = {
        collection.corpus.row_of(p) for p, grade in collection.qrels[collection.query_ids[query]].items() if grade > 0
    }
    texts = {collection.corpus.texts()[row] for row in rows if row is not None} | {collection.queries[query]}
    return {row for row, text in enumerate(collection.corpus.texts()) if text in texts}


def test_the_hardest_are_the_nearest_that_are_not_known_to_be_relevant(
    collection: Collection, tiny_bert: Path, tmp_path: Path
) -> None:
    result, rows = mined(collection, tiny_bert, Mining(negatives=3, first_rank=2, last_rank=9), tmp_path / "out.jsonl")
    assert (result.pairs, result.negatives, result.short, result.none) == (31, 93, 0, 0)
    assert len(rows) == 31
    assert result.mean_rank == 3
    texts = collection.corpus.texts()
    for query in (0, 1, 2):
        order, _ = by_distance(collection, tiny_bert, query)
        expected = [row for row in order if row not in relevant_to(collection, query)][1:4]
        of_query = [row for row in rows if row["query"] == collection.queries[query]]
        assert len(of_query) == (2 if query == 1 else 1)
        assert all(row["negatives"] == [texts[each] for each in expected] for row in of_query)
    assert {str(row["positive"]) for row in rows if row["query"] == collection.queries[1]} == {
        texts[collection.corpus.row_of(each) or 0] for each in ("d1", "d5")
    }
    provenance = json.loads((tmp_path / "out.jsonl.provenance.json").read_text())
    assert provenance["collection"]["sha256"] == collection.sha256
    assert provenance["model"]["identity"].startswith("sha256:")
    assert provenance["mining"]["last_rank"] == 9


def test_a_margin_leaves_out_what_is_about_as_near_as_the_positive(
    collection: Collection, tiny_bert: Path, tmp_path: Path
) -> None:
    asked = Mining(negatives=40, last_rank=40, margin=0.1)
    result, rows = mined(collection, tiny_bert, asked, tmp_path / "out.jsonl")
    texts = collection.corpus.texts()
    left_out = 0
    for query in (0, 1, 2):
        order, distances = by_distance(collection, tiny_bert, query)
        known = relevant_to(collection, query)
        for row in (each for each in rows if each["query"] == collection.queries[query]):
            nearest = distances[texts.index(str(row["positive"]))]
            far = [each for each in order if each not in known and distances[each] >= 1.1 * nearest]
            given = row.get("negatives", [row["negative"]] if "negative" in row else [])
            assert given == [texts[each] for each in far]
            left_out += sum(each not in known and distances[each] < 1.1 * nearest for each in order)
    assert left_out
    assert result.nearer_left_out >= left_out
    assert result.short == result.pairs


def test_sampling_stays_in_the_ranks_and_is_the_same_for_a_seed(
    collection: Collection, tiny_bert: Path, tmp_path: Path
) -> None:
    first, rows = mined(collection, tiny_bert, Mining(2, 3, 12, pick="sample"), tmp_path / "a.jsonl")
    _, again = mined(collection, tiny_bert, Mining(2, 3, 12, pick="sample"), tmp_path / "b.jsonl")
    _, other = mined(collection, tiny_bert, Mining(2, 3, 12, pick="sample", seed=1), tmp_path / "c.jsonl")
    assert rows == again != other
    assert first.mean_rank is not None
    assert 3 < first.mean_rank < 12
    texts = collection.corpus.texts()
    order, _ = by_distance(collection, tiny_bert, 0)
    allowed = {texts[row] for row in [row for row in order if row not in relevant_to(collection, 0)][2:12]}
    assert set(rows[0]["negatives"]) <= allowed


def test_random_negatives_need_no_model_and_are_never_relevant(collection: Collection, tmp_path: Path) -> None:
    result, rows = mined(collection, None, Mining(negatives=2, pick="corpus"), tmp_path / "out.jsonl")
    assert (result.pairs, result.negatives, result.mean_rank) == (31, 62, None)
    texts = collection.corpus.texts()
    for query in range(len(collection.queries)):
        known = {texts[row] for row in relevant_to(collection, query)}
        for row in (each for each in rows if each["query"] == collection.queries[query]):
            assert len(set(row["negatives"]) - known) == 2
    assert len({json.dumps(row["negatives"]) for row in rows}) > 25
    every, _ = mined(collection, None, Mining(negatives=99, pick="corpus"), tmp_path / "all.jsonl")
    assert every.short == every.pairs


def test_an_interrupted_search_goes_on_with_its_part(
    collection: Collection, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mining, "QUERIES_AT_A_TIME", 7)
    asked = []
    real: Any = evaluator.search

    def spy(queries: np.ndarray[tuple[int, int], np.dtype[np.float32]], *rest: object, **more: object) -> object:
        asked.append(len(queries))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(queries, *rest, **more)

    monkeypatch.setattr(evaluator, "search", spy)
    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        mined(collection, tiny_bert, Mining(), output)
    assert not output.exists()
    _, rows = mined(collection, tiny_bert, Mining(), output)
    assert asked == [7, 7, 7, 7, 7, 2]  # the two that were done are not searched again
    assert not list((cache_folder() / "mined").glob("*/"))
    monkeypatch.undo()
    _, straight = mined(collection, tiny_bert, Mining(), tmp_path / "straight.jsonl")
    assert rows == straight


def test_what_training_would_refuse_or_knows_is_no_negative(
    collection: Collection, tiny_bert: Path, tmp_path: Path
) -> None:
    """Empty passages, passages relevant in another split, and a second passage with the same text."""
    folder = tmp_path / "tiny"
    corpus = (
        folder / "corpus.jsonl"
    ).read_text() + '{"_id": "empty", "text": ""}\n{"_id": "e2", "title": " ", "text": ""}\n'
    (folder / "corpus.jsonl").write_text(corpus)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq4\td9\t1\nq4\tempty\t1\n")
    qrels = folder / "qrels" / "train.tsv"
    qrels.write_text(qrels.read_text() + "q7\tempty\t1\n")
    again = read_collection(folder, "train")
    texts = again.corpus.texts()
    for asked, model in ((Mining(negatives=40, last_rank=40), tiny_bert), (Mining(negatives=40, pick="corpus"), None)):
        result, rows = mined(again, model, asked, tmp_path / "out.jsonl")
        assert (result.pairs, result.without_text) == (31, 1)
        for row in rows:
            given = row["negatives"]
            assert isinstance(given, list)
            assert "" not in given
            assert len(set(given)) == len(given)
        of_q4 = next(row for row in rows if row["query"] == again.queries[again.query_ids.index("q4")])
        assert texts[again.corpus.row_of("d9") or 0] not in of_q4["negatives"]


def test_queries_that_are_passages_are_not_their_own_negatives(tmp_path: Path, tiny_bert: Path) -> None:
    folder = write_collection(tmp_path / "arguana", 8, split="train")
    lines = (folder / "corpus.jsonl").read_text() + '{"_id": "q0", "text": "the query, in other words"}\n'
    (folder / "corpus.jsonl").write_text(lines)
    _, rows = mined(
        read_collection(folder, "train"), tiny_bert, Mining(negatives=9, last_rank=9), tmp_path / "out.jsonl"
    )
    assert "the query, in other words" not in rows[0]["negatives"]
    assert "the query, in other words" in rows[1]["negatives"]


def test_the_command_trains_on_what_it_mined(
    collection: Collection, tiny_bert: Path, tmp_path: Path, ragcun: RunCommand, small_recipe: Path
) -> None:
    output = tmp_path / "mined.jsonl"
    arguments = ["data", "mine", tmp_path / "tiny", "-m", tiny_bert, "-o", output, "--ranks", "1-20", "-n", "2"]
    done = ragcun(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["pairs"] == 31
    plan = ragcun("train", "--recipe", small_recipe, "--set", f"data.train={output}", "--dry-run", "--json")
    counts = json.loads(plan.stdout)["plan"]
    assert (counts["triples"], counts["hard_negatives"]) == (31, 31)
    assert counts["negatives_per_query"] > 20  # eight positives and their two negatives each


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranks", "9-1"], "--ranks 9-1: expected FIRST-LAST"),
        (["--ranks", "1-2", "-n", "3"], "fewer ranks than --negatives 3"),
        (["--ranks", "1000-2000"], "the corpus has only 32 passages"),
        (["--pick", "corpus", "--margin", "0"], "--ranks and --margin do not apply"),
        (["--pick", "best"], "--pick best: unknown"),
        (["--split", "dev"], "no split 'dev'"),
    ],
)
def test_what_cannot_be_mined(
    collection: Collection, tiny_bert: Path, tmp_path: Path, ragcun: RunCommand, arguments: list[str], message: str
) -> None:
    output = tmp_path / "out.jsonl"
    done = ragcun("data", "mine", tmp_path / "tiny", "-m", tiny_bert, "-o", output, *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not output.exists()
    no_model = ragcun("data", "mine", tmp_path / "tiny", "-o", output)
    assert "or use --pick corpus" in no_model.stderr
    wrong_ending = ragcun("data", "mine", tmp_path / "tiny", "-m", tiny_bert, "-o", tmp_path / "out.tsv")
    assert "out.jsonl" in wrong_ending.stderr
    output.write_text("mine")
    there = ragcun("data", "mine", tmp_path / "tiny", "-m", tiny_bert, "-o", output)
    assert "already exists" in there.stderr
    assert output.read_text() == "mine"
