"""TREC-NEWS: the Washington Post collection v2, and the topics of the 2019 background linking task.

A passage is an article's title and its paragraphs without markup. (How BEIR joined and cleaned paragraphs was
never published.) A query is the title of the article that the topic names.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ragcun_cli.data.licensed.delivered import find_one, opened, text_lines, text_of_markup
from ragcun_cli.data.licensed.writing import Parts, Passage, read_trec_qrels
from ragcun_cli.data.lines import json_lines
from ragcun_cli.errors import DataError

TOPICS, QRELS = "newsir19-background-linking-topics.xml", "newsir19-qrels-background.txt"
ARTICLES = ("trec_washington_post_collection.v2.jl*", "washingtonpost.v2.tar.gz")
BLOCK_BYTES = 1 << 20
GRADES = {"0": 0, "2": 1, "4": 2, "8": 3, "16": 4}
TOPIC = re.compile(r"<num>\s*Number:\s*(\d+).*?<docid>\s*([0-9a-f-]+)\s*</docid>", re.DOTALL)


def read_trec_news(root: Path) -> Parts:
    """Read a folder with the collection, and the topics and judgements of 2019."""
    at_nist = "Get it from https://trec.nist.gov/data/news/2019/"
    topics, qrels = find_one(root, (TOPICS,), at_nist), find_one(root, (QRELS,), at_nist)
    articles = find_one(
        root, ARTICLES, "Get collection v2 from https://trec.nist.gov/data/wapost; later versions lack articles."
    )
    # Topics are not well-formed XML: there are many roots and unclosed tags.
    asked = {docid: number for number, docid in TOPIC.findall("\n".join(text_lines(topics)))}
    if not asked:
        raise DataError(f"{topics}: contains no topic with <num> and <docid>")
    judgements = read_trec_qrels(text_lines(qrels), str(qrels), GRADES)
    queries: dict[str, str] = {}
    return Parts(_passages(articles, asked, queries), queries, judgements)


def _passages(path: Path, asked: dict[str, str], queries: dict[str, str]) -> Iterator[Passage]:
    """Yield the passages, and fill `queries` from the articles that topics name."""
    with _lines(path) as stream:
        for number, article in json_lines(stream, str(path)):
            identity = article.get("id")
            if not isinstance(identity, str):
                raise DataError(f"{path}:{number}: 'id' is missing")
            title = article.get("title") or ""
            if identity in asked:
                queries[asked[identity]] = title
            yield Passage(identity, title, _text(article))


@contextlib.contextmanager
def _lines(path: Path) -> Iterator[BinaryIO]:
    if not path.name.lower().endswith(".tar.gz"):
        with opened(path) as stream:
            yield stream
        return
    try:
        # Not tarfile's own gzip, which does not verify the checksum.
        with gzip.open(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
            for member in archive:
                inner = archive.extractfile(member) if member.name.endswith(".jl") else None
                if inner is not None:
                    yield cast(BinaryIO, inner)
                    while unpacked.read(BLOCK_BYTES):  # the checksum is at the end
                        pass
                    return
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or incomplete ({error})", "Get it again.") from None
    raise DataError(f"{path}: contains no .jl file")


def _text(article: dict[str, Any]) -> str:
    paragraphs = []
    for item in article.get("contents") or []:
        content = item.get("content") if isinstance(item, dict) and item.get("subtype") == "paragraph" else None
        if isinstance(content, str):
            paragraphs.append(text_of_markup(content) if item.get("mime") == "text/html" else content)
    return " ".join(" ".join(paragraphs).split())
