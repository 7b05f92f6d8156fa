"""Collections, their judgements and their zips."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ragcun_cli.data.collection import Collection, read_collection
from tests.properties.inputs import IDS, TEXTS, answers_or_refuses, damaged, new_folder


@dataclass(frozen=True)
class Lines:
    """A collection's three files, line by line; the judgements without their header."""

    corpus: list[str]
    queries: list[str]
    judgements: list[str]

    def files(self) -> dict[str, bytes]:
        qrels = ["query-id\tcorpus-id\tscore", *self.judgements]
        contents = {"corpus.jsonl": self.corpus, "queries.jsonl": self.queries, "qrels/test.tsv": qrels}
        return {name: ("\n".join(lines) + "\n").encode() for name, lines in contents.items()}


@dataclass(frozen=True)
class Drawn:
    passages: dict[str, tuple[str, str]]
    queries: dict[str, str]
    grades: dict[str, dict[str, int]]

    @property
    def lines(self) -> Lines:
        return Lines(
            [json.dumps({"_id": each, "title": title, "text": text}) for each, (title, text) in self.passages.items()],
            [json.dumps({"_id": each, "text": text}, ensure_ascii=False) for each, text in self.queries.items()],
            [f"{query}\t{each}\t{grade}" for query, of in self.grades.items() for each, grade in of.items()],
        )


def unquoted(identity: str) -> bool:
    return not (identity[0] == identity[-1] == '"')


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    ids = IDS.filter(unquoted)
    passages = draw(st.dictionaries(ids, st.tuples(st.just("") | TEXTS, TEXTS), min_size=1, max_size=8))
    queries = draw(st.dictionaries(ids, TEXTS, min_size=1, max_size=4))
    grades = st.dictionaries(st.sampled_from(sorted(passages)), st.integers(-1, 4), min_size=1)
    return Drawn(passages, queries, {each: draw(grades) for each in queries})


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"set/{name}"), content)
    return stream.getvalue()


def content_of(collection: Collection) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    ids = collection.corpus.ids(range(len(collection.corpus)))
    return (
        dict(zip(ids, collection.corpus.texts(), strict=True)),
        dict(zip(collection.query_ids, collection.queries, strict=True)),
        {query: dict(grades) for query, grades in collection.qrels.items()},
    )


@given(drawn())
def test_what_is_written_is_read_as_it_was(task: Drawn) -> None:
    with new_folder() as folder:
        passages, queries, grades = content_of(read_collection(write(folder / "set", task.lines.files())))
        (folder / "set.zip").write_bytes(zipped(task.lines.files()))
        assert content_of(read_collection(folder / "set.zip")) == (passages, queries, grades)
    assert grades == task.grades
    assert queries == task.queries
    # BEIR's way to put title and text together.
    assert passages == {each: f"{title} {text}".strip() for each, (title, text) in task.passages.items()}


@given(task=drawn(), data=st.data())
def test_the_order_of_lines_changes_nothing(task: Drawn, data: st.DataObject) -> None:
    lines = task.lines
    shuffled = Lines(*(data.draw(st.permutations(each)) for each in (lines.corpus, lines.queries, lines.judgements)))
    with new_folder() as folder:
        in_order, otherwise = (
            content_of(read_collection(write(folder / str(place) / "set", each.files())))
            for place, each in enumerate((lines, shuffled))
        )
    assert in_order == otherwise


WHOLE = Drawn(
    {"p1": ("A title", "a passage"), "p2": ("", "é 中"), 'p"3': ("", "another")},
    {"q1": "what is this", "q2": "and é?"},
    {"q1": {"p1": 2, 'p"3': 0}, "q2": {"p2": 1}},
)


@given(name=st.sampled_from(sorted(WHOLE.lines.files())), data=st.data())
def test_a_damaged_file_is_read_or_refused_in_words(name: str, data: st.DataObject) -> None:
    files = WHOLE.lines.files()
    files[name] = data.draw(damaged(files[name]))
    with new_folder() as folder:
        answers_or_refuses(lambda: content_of(read_collection(write(folder / "set", files))))


@given(content=damaged(zipped(WHOLE.lines.files())))
def test_a_damaged_zip_is_read_or_refused_in_words(content: bytes) -> None:
    with new_folder() as folder:
        (folder / "set.zip").write_bytes(content)
        answers_or_refuses(lambda: content_of(read_collection(folder / "set.zip")))
