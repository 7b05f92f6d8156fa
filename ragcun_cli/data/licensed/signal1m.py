"""Signal-1M (related tweets): passages are tweets by id, queries are titles of news articles.

Tweets are cleaned as in BEIR's script: these emoji, line ends and addresses are removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ragcun_cli.console import note
from ragcun_cli.data.licensed.delivered import find_one, opened, text_lines
from ragcun_cli.data.licensed.writing import Parts, Passage, read_trec_qrels
from ragcun_cli.data.lines import json_lines, numbered_lines
from ragcun_cli.errors import DataError

EMOJI = re.compile("[\U0001f600-\U0001f64f\U0001f300-\U0001f5ff\U0001f680-\U0001f6ff\U0001f1e0-\U0001f1ff]+")
ADDRESS = re.compile(r"http\S+")


def read_signal1m(root: Path) -> Parts:
    """Read a folder with tweets.tsv (id, tab, text; the user fetches them by published id), the judgements, and
    Signal-1M's articles.
    """
    what = "Request it with the form at https://research.signal-ai.com"
    tweets = find_one(root, ("tweets.tsv", "tweets.tsv.gz"), "It has lines of tweet id, tab, text; fetch tweets by id.")
    qrels = find_one(root, ("signal1m_tweets_qrels*",), what)
    articles = find_one(root, ("sample-1m.jsonl*", "signalmedia-1m.jsonl*"), what)
    judgements = read_trec_qrels(text_lines(qrels), str(qrels))
    relevant = {
        query: {tweet: grade for tweet, grade in grades.items() if grade > 0} for query, grades in judgements.items()
    }
    relevant = {query: grades for query, grades in relevant.items() if grades}
    return Parts(_passages(tweets), _titles(articles, relevant), relevant)


def cleaned(tweet: str) -> str:
    """Remove emoji, line ends and addresses."""
    return ADDRESS.sub("", EMOJI.sub("", tweet).replace("\n", "")).strip()


def _passages(path: Path) -> Iterator[Passage]:
    empty = 0
    with opened(path) as stream:
        for number, line in numbered_lines(stream, str(path)):
            try:
                identity, tab, text = line.decode("utf-8").rstrip("\r\n").partition("\t")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}:{number}: not UTF-8 text (byte {error.start})") from None
            if not tab or not identity.isdigit():
                raise DataError(f"{path}:{number}: expected: tweet id, tab, text")
            if not (text := cleaned(text)):
                empty += 1
                continue
            yield Passage(identity, "", text)
    note(f"{path}: {empty} tweets without text were left out.")


def _titles(path: Path, asked: dict[str, dict[str, int]]) -> dict[str, str]:
    titles = {}
    with opened(path) as stream:
        for _, article in json_lines(stream, str(path)):
            identity = article.get("id")
            if isinstance(identity, str) and identity in asked:
                titles[identity] = str(article.get("title") or "")
    return titles
