"""BioASQ: PubMed articles from task 9a (training v.2020), and the 500 test questions of task 8b."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragcun_cli.console import note
from ragcun_cli.data.licensed.delivered import find, find_one, opened
from ragcun_cli.data.licensed.writing import Parts, Passage
from ragcun_cli.errors import DataError, UsageError

BATCHES = 5


def read_bioasq(root: Path) -> Parts:
    """Read a folder with allMeSH_2020.json, 8B1_golden.json to 8B5_golden.json and, if you have it, BEIR's list of
    additions (pmid, title, abstract, separated by tabs or commas).
    """
    what = "Get it from http://participants-area.bioasq.org after registering."
    articles = find_one(root, ("allmesh_2020.json*", "allmesh_2020.zip"), what)
    golden = find(root, ("8b?_golden.json",), what)
    if len(golden) != BATCHES:
        raise UsageError(f"{root}: found {len(golden)} files 8B?_golden.json, expected {BATCHES}", what)
    additions = [
        path for path in sorted(root.rglob("*")) if "manual" in path.name.lower() and path.suffix in (".csv", ".tsv")
    ]
    if not additions:
        note(f"{root}: without BEIR's list of additions (Manual-fixes….csv) about 660 judged articles will be missing.")
    queries: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    for path in golden:
        for question in _questions(path):
            queries[question["id"]] = question["body"]
            judgements[question["id"]] = {url.rstrip("/").rsplit("/", 1)[-1]: 1 for url in question["documents"]}
    return Parts(_passages(articles, additions), queries, judgements)


def _questions(path: Path) -> list[dict[str, Any]]:
    try:
        questions: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["questions"]
        for question in questions:
            if not isinstance(question["id"], str) or not isinstance(question["body"], str):
                raise TypeError("id and body must be text")
            if not all(isinstance(url, str) for url in question["documents"]):
                raise TypeError("documents must be addresses")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a BioASQ question file ({error!r})") from None
    return questions


def _passages(articles: Path, additions: list[Path]) -> Iterator[Passage]:
    seen: set[str] = set()
    twice = 0
    for passage in _all(articles, additions):
        if passage.identity in seen:
            twice += 1
            continue
        seen.add(passage.identity)
        yield passage
    note(f"{articles}: {twice} articles are duplicates and were skipped.")


def _all(articles: Path, additions: list[Path]) -> Iterator[Passage]:
    with opened(articles) as stream:
        for number, line in enumerate(stream, start=1):
            # One article per line, between {"articles":[ and ]}.
            text = _decoded(line).strip().removeprefix('{"articles":[').strip()
            text = text.removesuffix("]}") if text.endswith("}]}") else text
            text = text.rstrip(",").strip()
            if not text or text == "]}":
                continue
            try:
                article = json.loads(text)
                identity = str(article["pmid"])
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{articles}:{number}: not an article in BioASQ's format") from None
            yield Passage(identity, article.get("title") or "", article.get("abstractText") or "")
    for path in additions:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as rows:
            for row in csv.reader(rows, delimiter="\t" if path.suffix == ".tsv" else ","):
                if len(row) >= 3 and row[0].strip().isdigit():
                    yield Passage(row[0].strip(), row[1].strip(), row[2].strip())


def _decoded(line: bytes) -> str:
    """Decode a line as UTF-8 if possible, else as Latin-1, which most readers of the file assume."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")
