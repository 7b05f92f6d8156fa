"""The licensed sets, from files shaped as their owners' readers describe them (the files themselves cannot be had)."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from ragcun_cli.data.collection import read_collection
from ragcun_cli.data.licensed.delivered import opened, text_of_markup
from ragcun_cli.data.licensed.importing import import_set
from ragcun_cli.data.licensed.signal1m import cleaned
from ragcun_cli.errors import DataError, UsageError
from tests.conftest import RunCommand

FT = """<DOC>
<DOCNO>FT911-3</DOCNO>
<PROFILE>_AN-BEOA7AAIFT</PROFILE>
<DATE>910514
</DATE>
<HEADLINE>
FT  14 MAY 91 / A &amp; B
</HEADLINE>
<BYLINE>nobody</BYLINE>
<TEXT>
A first <F P=100>body</F>.
</TEXT>
<PUB>The Financial Times
</PUB>
</DOC>
<DOC>
<DOCNO>FT911-4</DOCNO>
<PROFILE>nothing to read</PROFILE>
</DOC>
"""
FBIS = """<DOC>
<DOCNO> FBIS3-1 </DOCNO>
<HT> "cr0000" </HT>
<HEADER>
<H3> <TI> a title outside of the text </TI></H3>
</HEADER>
<TEXT>
Language: English
</TEXT>
</DOC>
"""
TOPICS = """<top>

<num> Number: 301
<title> International Organized Crime

<desc> Description:
Identify organizations that
participate.

<narr> Narrative:
A relevant document

</top>

<top>
<num> Number: 672
<title> x
<desc>
never judged
<narr>
y
</top>
"""


def compressed(content: bytes) -> bytes:
    """Unix compress with nothing but codes of one byte each: the table is cleared before it could be used.

    Codes are 9 bits wide, in groups of eight; 256 clears.
    """
    out = bytearray(b"\x1f\x9d\x90")
    for start in range(0, len(content), 7):
        codes = [*content[start : start + 7], 256]
        codes += [0] * (8 - len(codes))
        if start + 7 >= len(content):
            codes = list(content[start : start + 7])
        bits = sum(code << (9 * place) for place, code in enumerate(codes))
        out += bits.to_bytes(-(-9 * len(codes) // 8), "little")
    return bytes(out)


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def disks(tmp_path: Path) -> Path:
    root = tmp_path / "disks"
    write(root / "TREC-Disk-4" / "FT" / "FT911" / "FT911_1.Z", compressed(FT.encode()))
    write(root / "TREC-Disk-5" / "fbis" / "fb396001.gz", gzip.compress(FBIS.encode()))
    write(root / "TREC-Disk-5" / "fbis" / "readmefb.txt", FBIS.replace("FBIS3-1", "SAMPLE"))
    write(root / "TREC-Disk-4" / "CR" / "FR" / "FR1", FBIS.replace("FBIS3-1", "CONGRESS"))
    write(root / "TREC-Disk-4" / "dtds" / "ftdtd", "<!ELEMENT DOC>")
    write(root / "04.testset.gz", gzip.compress(TOPICS.encode()))
    write(root / "qrels.robust2004.txt", "301 0 FBIS3-1 1\n301 0 FT911-3 0\n672 0 FT911-3 1\n")
    return root


# ragcun itself needs the program for .Z files, which no library of Python reads, and says so where it is missing.
# Debian and macOS always have gzip, so CI runs this; only a bare container lacks it.
@pytest.mark.skipif(shutil.which("gzip") is None, reason="unix compress is unpacked by gzip")
def test_robust04(disks: Path, tmp_path: Path) -> None:
    done = import_set("robust04", disks, tmp_path / "data")
    assert (done.passages, done.queries, done.judgements) == (2, 1, 2)
    assert done.differences == (
        "2 passages, but BEIR's robust04 has 528,036",
        "1 queries, but BEIR's robust04 has 249",
        "2 judgements, but BEIR's robust04 has 311,410",
    )
    found = read_collection(tmp_path / "data" / "robust04")
    assert dict(zip(found.corpus.ids(range(2)), found.corpus.texts(), strict=True)) == {
        "FBIS3-1": "Language: English",
        "FT911-3": "910514\n\n\nFT  14 MAY 91 / A & B\n\n\nA first body.",
    }
    assert found.queries == ["Identify organizations that participate."]
    assert found.qrels == {"301": {"FBIS3-1": 1, "FT911-3": 0}}


def article(identity: str, title: str | None, *contents: object) -> str:
    return json.dumps({"id": identity, "title": title, "contents": contents}) + "\n"


def paragraph(content: object, mime: str = "text/html") -> dict[str, object]:
    return {"content": content, "mime": mime, "type": "sanitized_html", "subtype": "paragraph"}


ARTICLES = (
    article(
        "96ab-1", "Baseball’s leagues", None, {"content": "Sports", "mime": "text/plain", "type": "kicker"},
        {"content": 1472713234000, "type": "date"}, paragraph('A <a href="x">study</a> &amp; more'),
        paragraph("plain <kept>", "text/plain"), paragraph(None), {"type": "image", "fullcaption": "no"},
    )
    + article("bb-2", None, paragraph("Second"))
)  # fmt: skip


@pytest.mark.parametrize("packed", ["jl", "gz", "tar.gz"])
def test_trec_news(tmp_path: Path, packed: str) -> None:
    root, name = tmp_path / "wapo", "TREC_Washington_Post_collection.v2.jl"
    root.mkdir()
    if packed == "tar.gz":
        with tarfile.open(root / "WashingtonPost.v2.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo(f"WashingtonPost.v2/data/{name}")
            member.size = len(ARTICLES.encode())
            archive.addfile(member, io.BytesIO(ARTICLES.encode()))
    elif packed == "gz":
        write(root / f"{name}.gz", gzip.compress(ARTICLES.encode()))
    else:
        write(root / name, ARTICLES)
    write(
        root / "newsir19-background-linking-topics.xml",
        "<top>\n<num> Number: 826 </num>\n<docid>96ab-1</docid>\n<url>x</url>\n</top>\n",
    )
    write(root / "newsir19-qrels-background.txt", "826 0 bb-2 16\n826 0 96ab-1 0\n868 0 bb-2 2\n")
    done = import_set("trec-news", root, tmp_path / "data")
    assert (done.passages, done.queries, done.judgements) == (2, 1, 2)
    found = read_collection(done.folder)
    assert found.corpus.texts() == ["Baseball’s leagues A study & more plain <kept>", "Second"]
    assert found.queries == ["Baseball’s leagues"]
    assert found.qrels == {"826": {"bb-2": 4, "96ab-1": 0}}
    write(root / "newsir19-qrels-background.txt", "826 0 bb-2 3\n")
    with pytest.raises(DataError, match=r"background\.txt:1: expected: query 0 passage grade"):
        import_set("trec-news", root, tmp_path / "other")
    assert not (tmp_path / "other" / "trec-news").exists()


def test_signal1m(tmp_path: Path) -> None:
    root = tmp_path / "signal"
    write(root / "tweets.tsv", "11\tGood news 😀 here https://t.co/x\n12\t http://t.co/y \n13\tMore\n")
    write(root / "signal1m_tweets_qrels", "a-1 0 11 2\na-1 0 13 0\nb-2 0 13 0\n")
    write(
        root / "sample-1M.jsonl.gz", gzip.compress(b'{"id": "a-1", "title": "VIDEO: A & B"}\n{"id": "c", "title": 3}\n')
    )
    done = import_set("signal1m", root, tmp_path / "data")
    found = read_collection(done.folder)
    assert found.corpus.texts() == ["Good news  here", "More"]
    assert (found.queries, found.qrels) == (["VIDEO: A & B"], {"a-1": {"11": 2}})
    assert cleaned("a\nb http://x c") == "ab  c"
    write(root / "tweets.tsv", "no tab\n")
    with pytest.raises(DataError, match=r"tweets\.tsv:1: expected: tweet id, tab, text"):
        import_set("signal1m", root, tmp_path / "data", overwrite=True)
    assert read_collection(done.folder).queries == ["VIDEO: A & B"]  # what was there stays


@pytest.mark.parametrize("packed", ["json", "zip"])
def test_bioasq(tmp_path: Path, packed: str) -> None:
    root = tmp_path / "bioasq"
    lines = [
        '{"articles":[',
        json.dumps({"abstractText": "An abstract", "pmid": "1", "title": "One"}) + ",",
        json.dumps({"abstractText": None, "pmid": "2", "title": "Zw\u00f6lf"}, ensure_ascii=False) + ",",
        json.dumps({"abstractText": "again", "pmid": "1", "title": "One"}) + "]}",
    ]
    content = "\n".join(lines).encode("latin-1")
    if packed == "zip":
        root.mkdir()
        with zipfile.ZipFile(root / "allMeSH_2020.zip", "w") as archive:
            archive.writestr("allMeSH_2020.json", content)
    else:
        write(root / "allMeSH_2020.json", content)
    for number in range(1, 6):
        question = {
            "id": f"q{number}",
            "body": f"Question  {number}?",
            "documents": ["http://x/pubmed/1", "http://x/pubmed/3"],
        }
        write(root / "Task8BGoldenEnriched" / f"8B{number}_golden.json", json.dumps({"questions": [question]}))
    write(root / "Manual-fixes-BioASQ-Task8b.csv", '3,Three,"an addition, with a comma"\n')
    done = import_set("bioasq", root, tmp_path / "data")
    found = read_collection(done.folder)
    assert (done.passages, done.queries, done.judgements) == (3, 5, 10)
    assert found.corpus.texts() == ["One An abstract", "Zwölf", "Three an addition, with a comma"]
    assert found.queries[0] == "Question  1?"
    assert found.qrels["q1"] == {"1": 1, "3": 1}
    (root / "Task8BGoldenEnriched" / "8B5_golden.json").unlink()
    with pytest.raises(UsageError, match=r"found 4 files 8B\?_golden\.json, expected 5"):
        import_set("bioasq", root, tmp_path / "other")


def test_what_is_not_there(tmp_path: Path, disks: Path, ragcun: RunCommand) -> None:
    with pytest.raises(UsageError, match="not a licensed set"):
        import_set("scifact", tmp_path, tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        import_set("robust04", tmp_path / "nowhere", tmp_path)
    (disks / "qrels.robust2004.txt").unlink()
    done = ragcun("data", "import", "robust04", "--from", disks, "--data-dir", tmp_path / "data")
    assert done.exit_code == 2
    assert "https://trec.nist.gov/data/robust/qrels.robust2004.txt" in done.stderr
    (tmp_path / "data" / "robust04").mkdir(parents=True)
    again = ragcun("data", "import", "robust04", "--from", disks, "--data-dir", tmp_path / "data")
    assert "--overwrite" in again.stderr


# ragcun itself needs the program for .Z files, which no library of Python reads, and says so where it is missing.
# Debian and macOS always have gzip, so CI runs this; only a bare container lacks it.
@pytest.mark.skipif(shutil.which("gzip") is None, reason="unix compress is unpacked by gzip")
def test_packed_files_that_are_damaged(tmp_path: Path) -> None:
    write(tmp_path / "a.Z", b"\x1f\x9d\x10" + b"\xff" * 99)
    write(tmp_path / "b.gz", gzip.compress(b"text" * 99)[:-9])
    write(tmp_path / "c.zip", b"PK\x03\x04rest")
    for name in ("a.Z", "b.gz", "c.zip"):
        with pytest.raises(DataError, match="damaged or incomplete"), opened(tmp_path / name) as stream:
            stream.read()


def test_markup() -> None:
    assert text_of_markup("a <b>c</b> &lt; 3 &#233; & d<br/>e") == "a c < 3 é & de"
