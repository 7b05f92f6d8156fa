"""From docstrings to queries and passages, and the embedded collection made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragcun_cli.data import embedded
from ragcun_cli.data.collection import read_collection
from ragcun_cli.data.docstrings import installed_code, split_docstring
from ragcun_cli.data.embedded import SIZES, embedded_collection
from ragcun_cli.data.sources import available_collections, embedded_test
from ragcun_cli.data.triples.prepared import open_triples
from ragcun_cli.errors import DataError, UsageError
from tests.triple_tables import rows_of

REST = "This is the part that explains in more than twelve words what the function really does."


def test_the_first_sentence_is_the_query_and_the_rest_the_passage() -> None:
    assert split_docstring(f"Return the sum of it all. {REST}") == ("Return the sum of it all", REST)
    assert split_docstring(f"Return the sum of it all\n\n{REST}") == ("Return the sum of it all", REST)


def test_markup_doctests_and_rules_are_cleaned_away() -> None:
    docstring = f"""Return the :class:`~numpy.ndarray` of ``x`` values, e.g. a list.

    Notes
    -----
    {REST}

    >>> never_shown()
    42

    Examples
    --------
    never shown either
    """
    query, passage = split_docstring(docstring) or ("", "")
    assert query == "Return the numpy.ndarray of x values, e.g. a list"
    assert passage.startswith(f"Notes {REST}")
    assert "never" not in passage
    assert "---" not in passage


@pytest.mark.parametrize("docstring", ["", "Too short. " + REST, "A sentence of enough words. But then nothing more."])
def test_too_short_to_be_a_query_or_a_passage(docstring: str) -> None:
    assert split_docstring(docstring) is None


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    embedded_collection("docstrings-quick", folder)
    return folder / "docstrings-quick"


def triples_of(folder: Path) -> list[tuple[str, str, list[str]]]:
    return rows_of(open_triples(folder / "train.jsonl")[0])


def modules(folder: Path) -> set[str]:
    lines = (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["metadata"]["module"] for line in lines}


def test_the_collection_has_the_size_it_says(quick: Path) -> None:
    size = SIZES["docstrings-quick"]
    triples = triples_of(quick)
    assert len(triples) == size.train
    assert all(negatives and negatives != [positive] for _, positive, negatives in triples)
    assert len(read_collection(quick / "docstrings-quick-dev").queries) == size.dev
    assert len(read_collection(quick / "docstrings-quick-test").queries) == size.test


def test_every_passage_has_twelve_words_and_none_is_in_two_splits(quick: Path) -> None:
    triples = triples_of(quick)
    dev, test = (read_collection(quick / f"docstrings-quick-{split}") for split in ("dev", "test"))
    passages = [positive for _, positive, _ in triples] + dev.corpus.texts() + test.corpus.texts()
    queries = [query for query, _, _ in triples] + dev.queries + test.queries
    assert all(len(passage.split()) >= 12 for passage in passages)
    assert len(set(passages)) == len(passages)
    assert len(set(queries)) == len(queries)


def test_no_module_is_in_two_splits(quick: Path) -> None:
    dev, test = (modules(quick / f"docstrings-quick-{split}") for split in ("dev", "test"))
    assert dev
    assert test
    assert not dev & test
    in_training = {pair.module for pair in _training_pool()}
    assert not in_training & (dev | test)


def _training_pool() -> list[embedded.Pair]:
    pairs = embedded._distinct(
        pair
        for code in installed_code()
        for pair in embedded.pairs_of(
            code, lambda module: embedded._share("read " + module) < SIZES["docstrings-quick"].share_of_modules
        )
    )
    return embedded._split(pairs)["train"]


def test_hard_negatives_come_from_the_same_package(quick: Path) -> None:
    by_passage = {pair.passage: pair.package for pair in _training_pool()}
    for _, positive, negatives in triples_of(quick):
        assert [by_passage[positive]] == [by_passage[negative] for negative in negatives]


def test_the_same_files_give_the_same_collection(quick: Path, tmp_path: Path) -> None:
    again = embedded_collection("docstrings-quick", tmp_path)
    assert again.fingerprint == json.loads((quick / "fingerprint.json").read_text())
    for name in again.fingerprint["files"]:
        assert (tmp_path / "docstrings-quick" / name).read_bytes() == (quick / name).read_bytes()


def test_a_damaged_or_outdated_collection_is_made_again(quick: Path, tmp_path: Path) -> None:
    made = embedded_collection("docstrings-quick", tmp_path)
    before = made.train.read_bytes()
    made.train.write_bytes(before[:-20])
    assert embedded_collection("docstrings-quick", tmp_path).train.read_bytes() == before


def test_a_file_of_the_users_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "docstrings-quick").mkdir()
    (tmp_path / "docstrings-quick" / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"mine\.txt: not part of this collection"):
        embedded_collection("docstrings-quick", tmp_path)
    assert (tmp_path / "docstrings-quick" / "mine.txt").read_text() == "precious"


def test_an_intact_collection_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded_collection("docstrings-quick", tmp_path)
    monkeypatch.setattr(embedded, "_make", lambda *_: pytest.fail("made again"))
    embedded_collection("docstrings-quick", tmp_path)


def test_too_little_source_on_the_machine_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "installed_code", lambda: ())
    with pytest.raises(DataError, match="needs 48 docstrings, but this machine has 0"):
        embedded_collection("docstrings-quick", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_dataset_names(quick: Path) -> None:
    assert available_collections(quick) == ["docstrings-quick-dev", "docstrings-quick-test"]
    assert embedded_test("docstrings-quick-test", quick) is None
    assert embedded_test("embedded:docstrings-quick", quick.parent) == quick / "docstrings-quick-test"
    with pytest.raises(UsageError, match="no such embedded collection"):
        embedded_test("embedded:docstring", quick)
