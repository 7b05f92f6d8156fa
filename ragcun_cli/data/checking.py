"""Check what a reader should know about data before relying on them: counts, lengths and problems."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ragcun_cli.arrays import Flags, Numbers
from ragcun_cli.data.batches import conflicting_rows
from ragcun_cli.data.collection import Collection
from ragcun_cli.data.corpus import Corpus
from ragcun_cli.data.digests import Keys, keys_of
from ragcun_cli.data.exclusion import normalised_words, relevant_rows, untitled_keys
from ragcun_cli.data.triples.table import TripleTable

EXAMPLES = 3
EXAMPLE_CHARACTERS = 300
TEXTS_AT_A_TIME = 16_384
TEXTS_MEASURED = 100_000  # texts sampled for lengths; more would not change the percentiles

CountTokens = Callable[[Sequence[str]], Numbers]  # texts -> number of tokens, uncut


@dataclass(frozen=True)
class Finding:
    """A finding that a claim may have to mention: it applies to `count` of `of` things."""

    what: str
    count: int
    of: int
    examples: list[str]


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens of `texts` texts out of `of_all`. cut: how many are longer than `limit`."""

    of: str
    texts: int
    of_all: int
    mean: float
    median: float
    percentile_95: float
    longest: int
    limit: int
    cut: int


@dataclass
class CheckReport:
    """Report on one source. checked: every check that was made; not_checked: checks that were impossible, and why.
    written: description of what --write wrote.
    """

    source: str
    counts: dict[str, int]
    lengths: list[Lengths] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    written: str = ""

    def look(self, what: str, count: int, of: int, examples: Iterable[str]) -> None:
        """Record a check, and a finding if `count` is not 0, with the first few examples."""
        self.checked.append(what)
        if count:
            shown = [shortened(each) for each in itertools.islice(examples, EXAMPLES)]
            self.findings.append(Finding(what, count, of, shown or [""]))


def check_triples(table: TripleTable, source: str, count_tokens: CountTokens | None, limit: int) -> CheckReport:
    """Check training triples."""
    passages = table.passages()
    queries = np.unique(table.queries)
    report = CheckReport(
        source,
        {
            "triples": len(table),
            "distinct queries": len(queries),
            "distinct passages": len(passages),
            "hard negatives": len(table.negatives),
            "triples without a hard negative": len(table) - table.with_negative,
        },
    )
    owners = np.repeat(np.arange(len(table)), np.diff(table.negative_ends, prepend=0))
    rows = len(table)

    def rows_where(flags: Flags) -> Numbers:
        return np.unique(owners[flags])

    def look(what: str, found: Numbers) -> None:
        examples = (f"triple {row + 1}: {table.texts[int(table.queries[row])]!r}" for row in found.tolist())
        report.look(what, len(found), rows, examples)

    look_for_broken_rows(report, table)
    look("triples whose positive is also their negative", rows_where(table.negatives == table.positives[owners]))
    look("triples whose query equals their positive", np.flatnonzero(table.queries == table.positives))
    look("duplicate triples", _repeated(table))
    look(
        "triples with a negative that is a positive for the same query elsewhere",
        rows_where(_known_positive(table, owners)),
    )
    if count_tokens is not None:
        for of, numbers in (("queries", queries), ("passages", passages)):
            read = functools.partial(_texts, table, numbers)
            report.lengths.append(_lengths(of, len(numbers), read, count_tokens, limit))
    return report


def look_at_batches(report: CheckReport, table: TripleTable, batch_size: int) -> None:
    """Check triples against a batch size: some do not fill a batch, some are each other's negatives."""
    rows = len(table)
    report.counts[f"triples in an epoch's whole batches of {batch_size}"] = rows // batch_size * batch_size
    report.look(
        f"triples whose query has another positive in the same batch of {batch_size} (a false negative)",
        conflicting_rows(table, batch_size, seed=0) if rows >= batch_size else 0,
        rows,
        [],
    )


def look_for_broken_rows(report: CheckReport, table: TripleTable) -> None:
    """Look for rows that training refuses: missing query or positive, empty negative, or unreadable."""
    of = len(table) + table.left_out
    report.look("broken rows: empty texts or unreadable", table.left_out, of, table.first_left_out)


def check_against(report: CheckReport, table: TripleTable, others: Mapping[str, Collection]) -> None:
    """Report dev and test texts that are also training texts: queries are compared by words, passages
    exactly, and relevant passages also without their titles."""
    numbers = np.unique(table.queries)
    words = {normalised_words(table.texts[number]) for number in numbers.tolist()}
    keys = np.sort(_keys_of(table, table.passages()))
    positives = np.sort(_keys_of(table, np.unique(table.positives)))
    for name, collection in others.items():
        split, ids = collection.split, collection.corpus.ids
        same = [query for query in collection.queries if normalised_words(query) in words]
        of = len(collection.queries)
        report.look(f"queries of {name} ({split}) that are training queries", len(same), of, map(repr, same))
        relevant = relevant_rows(collection)
        untitled = untitled_keys(collection, relevant)
        trained = relevant[_is_in(collection.corpus.keys[relevant], positives) | _is_in(untitled, positives)]
        what = f"relevant passages of {name} ({split}) that are training positives"
        report.look(what, len(trained), len(relevant), ids(trained[:EXAMPLES]))
        seen = np.flatnonzero(_is_in(collection.corpus.keys, keys))
        what = f"passages of {name} that are training passages"
        report.look(what, len(seen), len(collection.corpus), ids(seen[:EXAMPLES]))


def check_collection(
    splits: Mapping[str, Collection], source: str, count_tokens: CountTokens | None, limit: int
) -> CheckReport:
    """Check a collection in BEIR's layout with all its splits."""
    corpus = next(iter(splits.values())).corpus
    facts = corpus.facts
    report = CheckReport(source, {"passages": len(corpus)})
    for split, collection in splits.items():
        report.counts[f"{split} queries"] = len(collection.queries)
        report.counts[f"{split} judgements"] = collection.judgements
    repeated = _later_of_equal(corpus.keys)
    report.look("passages with the same text as another", len(repeated), len(corpus), corpus.ids(repeated[:EXAMPLES]))
    empty = np.flatnonzero(corpus.keys == keys_of([""])[0])
    report.look("empty passages", len(empty), len(corpus), corpus.ids(empty[:EXAMPLES]))
    what = "passages whose id occurs again on a later line"
    report.look(what, facts.duplicate_ids, len(corpus), [facts.first_duplicate or ""])
    seen: dict[str, str] = {}
    for split, collection in splits.items():
        _check_split(report, split, collection, seen)
        if count_tokens is not None:
            read = functools.partial(_chosen, collection.queries)
            report.lengths.append(_lengths(f"{split} queries", len(collection.queries), read, count_tokens, limit))
    if count_tokens is not None:
        of_passages = functools.partial(_passages, corpus)
        report.lengths.append(_lengths("passages", len(corpus), of_passages, count_tokens, limit))
    return report


def _check_split(report: CheckReport, split: str, collection: Collection, seen: dict[str, str]) -> None:
    """Check one split. seen: the words of each query, and the first split that has it."""
    corpus, ids = collection.corpus, collection.query_ids
    lost = (
        f"{query_id} -> {passage_id}"
        for query_id, grades in collection.qrels.items()
        for passage_id in grades
        if corpus.row_of(passage_id) is None
    )
    what = f"{split} judgements of passages that are not in the corpus"
    report.look(what, collection.unknown_judgements, collection.judgements, lost)
    hopeless = [query_id for query_id, grades in collection.qrels.items() if max(grades.values()) <= 0]
    report.look(f"{split} queries without a relevant passage", len(hopeless), len(ids), hopeless)
    words = [normalised_words(query) for query in collection.queries]
    again = [place for place, each in enumerate(words) if seen.get(each, split) != split]
    examples = (f"{ids[place]}: {collection.queries[place]!r}" for place in again)
    report.look(f"{split} queries that are also in an earlier split", len(again), len(ids), examples)
    twice = _later_of_equal(keys_of(words)).tolist()
    report.look(f"duplicate {split} queries", len(twice), len(ids), (ids[place] for place in twice))
    for each in words:
        seen.setdefault(each, split)


def shortened(text: str, characters: int = EXAMPLE_CHARACTERS) -> str:
    """Shorten a text to one line."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"


def _repeated(table: TripleTable) -> Numbers:
    """Return rows that equal an earlier row, including negatives."""
    starts = np.concatenate([[0], table.negative_ends[:-1]])
    counts = table.negative_ends - starts
    # Equal rows have equal first negatives, so only rows that agree on these are compared in full.
    first = np.full(len(table), -1, dtype=np.int64)
    some = counts > 0
    first[some] = table.negatives[starts[some]]
    heads = np.stack([table.queries, table.positives, first, counts], axis=1)
    order = np.lexsort(heads.T)
    alike = np.flatnonzero((heads[order][1:] == heads[order][:-1]).all(axis=1))
    seen: set[bytes] = set()
    repeated = []
    for row in np.unique(np.concatenate([order[alike], order[alike + 1]])).tolist():
        whole = heads[row].tobytes() + table.negatives[starts[row] : table.negative_ends[row]].tobytes()
        if whole in seen:
            repeated.append(row)
        seen.add(whole)
    return np.array(repeated, dtype=np.int64)


def _known_positive(table: TripleTable, owners: Numbers) -> Flags:
    """Flag negatives, (m,), that are a positive of the same query in another triple (not in their own)."""
    texts = len(table.texts)
    positives = np.unique(table.queries * texts + table.positives)
    asked = table.queries[owners] * texts + table.negatives
    return _is_in(asked, positives) & (table.negatives != table.positives[owners])


def _is_in(values: npt.NDArray[np.generic], ascending: npt.NDArray[np.generic]) -> Flags:
    if not len(ascending):
        return np.zeros(len(values), dtype=bool)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    found: Flags = ascending[places] == values
    return found


def _later_of_equal(keys: Keys) -> Numbers:
    _, first = np.unique(keys, return_index=True)
    later = np.ones(len(keys), dtype=bool)
    later[first] = False
    return np.flatnonzero(later)


def _chosen(texts: Sequence[str], places: Numbers) -> list[str]:
    return [texts[place] for place in places.tolist()]


def _passages(corpus: Corpus, places: Numbers) -> list[str]:
    return corpus.texts(corpus.rows_in_file_order()[places])


def _texts(table: TripleTable, numbers: Numbers, places: Numbers) -> list[str]:
    return _chosen(table.texts, numbers[places])


def _keys_of(table: TripleTable, numbers: Numbers) -> Keys:
    parts = [
        keys_of(_texts(table, numbers, np.arange(start, min(start + TEXTS_AT_A_TIME, len(numbers)))))
        for start in range(0, len(numbers), TEXTS_AT_A_TIME)
    ]
    return np.concatenate(parts) if parts else keys_of([])


def _lengths(of: str, count: int, read: Callable[[Numbers], list[str]], tokens: CountTokens, limit: int) -> Lengths:
    """Measure `count` texts, or an evenly spaced sample; `read(places)` returns texts."""
    places = np.linspace(0, count - 1, min(count, TEXTS_MEASURED)).astype(np.int64)
    parts = [places[start : start + TEXTS_AT_A_TIME] for start in range(0, len(places), TEXTS_AT_A_TIME)]
    counts = np.concatenate([tokens(read(part)) for part in parts]) if parts else np.zeros(1, dtype=np.int64)
    return Lengths(
        of,
        len(places),
        count,
        round(float(counts.mean()), 2),
        float(np.median(counts)),
        float(np.percentile(counts, 95)),
        int(counts.max()),
        limit,
        int((counts > limit).sum()),
    )
