"""Robust04: TREC disks 4 and 5 without the Congressional Record, and the descriptions of 249 topics.

Texts are built as BEIR's author describes, following ir_datasets: the content of the tags below, where these
begin a line, without markup. Empty documents are left out; BEIR has 119 fewer than the disks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ragcun_cli.console import note
from ragcun_cli.data.licensed.delivered import find, find_one, opened, text_lines, text_of_markup
from ragcun_cli.data.licensed.writing import Parts, Passage, read_trec_qrels
from ragcun_cli.errors import DataError

FOLDERS = {"fbis": "fb*", "fr94": "fr*", "ft": "ft*", "latimes": "la*"}
NEITHER = re.compile(r"readme|readchg|readfrcg|dtd", re.IGNORECASE)  # these hold sample documents
TAGS = ("TEXT", "HEADLINE", "TITLE", "HL", "HEAD", "TTL", "DD", "DATE", "LP", "LEADPARA")
TOPIC = re.compile(r"<top>.*?</top>", re.DOTALL)
NUMBER = re.compile(r"<num>\s*(?:Number:)?\s*(\d+)")
DESCRIPTION = re.compile(r"<desc>\s*(?:Description:)?(.*?)<narr>", re.DOTALL)
UNJUDGED = "672"


def read_robust04(root: Path) -> Parts:
    """Read a folder with the disks, 04.testset and qrels.robust2004.txt."""
    topics = find_one(root, ("04.testset", "04.testset.gz"), "See https://trec.nist.gov/data/robust/04.testset.gz")
    qrels = find_one(root, ("qrels.robust2004.txt",), "See https://trec.nist.gov/data/robust/qrels.robust2004.txt")
    judgements = read_trec_qrels(text_lines(qrels), str(qrels))
    return Parts(_passages(root), _queries(topics), judgements)


def _passages(root: Path) -> Iterator[Passage]:
    empty = 0
    for path in _document_files(root):
        with opened(path) as stream:
            content = stream.read().decode("utf-8", "replace")
        for identity, text in _documents(content, path):
            if not text.strip():
                empty += 1
                continue
            yield Passage(identity, "", text.strip())
    note(f"{root}: {empty} documents without text were left out.")


def _document_files(root: Path) -> list[Path]:
    patterns = tuple(FOLDERS.values())
    found = find(root, patterns, "Add TREC disks 4 and 5 (FBIS, FR94, FT and LATIMES) as delivered by NIST.")

    def belongs(path: Path) -> bool:
        above = [part.lower() for part in path.relative_to(root).parts[:-1]]
        if any(part in ("cr", "dtd", "dtds", "aux") for part in above) or NEITHER.search(path.name):
            return False
        return any(folder in above and path.name.lower().startswith(FOLDERS[folder][:-1]) for folder in FOLDERS)

    return [path for path in found if belongs(path)]


def _documents(content: str, path: Path) -> Iterator[tuple[str, str]]:
    kept: list[str] = []
    identity = until = ""
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if line.startswith("<DOC>"):
            identity, kept, until = "", [], ""
        elif line.startswith("<DOCNO>"):
            identity = line.replace("<DOCNO>", "").replace("</DOCNO>", "").strip()
        elif line.startswith("</DOC>"):
            if not identity:
                raise DataError(f"{path}:{number}: a document without DOCNO ends here")
            yield identity, text_of_markup("".join(kept))
        else:
            if not until:
                until = next((f"</{tag}>" for tag in TAGS if line.startswith(f"<{tag}>")), "")
            if until:
                kept.append(line)
                if until in line:
                    until = ""


def _queries(path: Path) -> dict[str, str]:
    with opened(path) as stream:
        content = stream.read().decode("utf-8", "replace")
    queries = {}
    for topic in TOPIC.findall(content) or re.split(r"(?=<top>)", content):
        number, description = NUMBER.search(topic), DESCRIPTION.search(topic)
        if number and description and number[1] != UNJUDGED:
            queries[number[1]] = description[1].strip().replace("\n", " ")
    if not queries:
        raise DataError(f"{path}: contains no topic with <num> and <desc>")
    return queries
