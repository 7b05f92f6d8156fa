"""Hard negatives: passages that an encoder finds near a query and that nobody judged relevant to it.

1. Embed the collection, with the evaluation's encoder and store, and search exactly (`evaluate.search`).
2. Drop from each query's ranking what is known to answer it: its relevant passages (those of other splits too),
   passages with the same text as one of these or as the query, and on ArguAna and Quora the query itself. Empty
   passages are left out too.
3. Among the requested ranks of the rest, drop what is nearer than the margin allows, and pick.

Queries are searched in parts, kept in the cache until the triples are written: an interrupted run continues
with the part it was in.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ragcun_cli import __version__, files
from ragcun_cli.arrays import Figures, Numbers
from ragcun_cli.console import StepProgress, note, saying_if_interrupted
from ragcun_cli.data.cache import cache_folder, key_of, only_writer
from ragcun_cli.data.collection import Collection
from ragcun_cli.data.digests import keys_of
from ragcun_cli.data.exclusion import Excluded, provenance_path
from ragcun_cli.data.qrels import qrels_lines, qrels_path, splits_in
from ragcun_cli.data.registry import known_dataset
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.evaluate.embedding import Embedded
from ragcun_cli.evaluate.evaluator import EvaluationSettings, ModelEvaluator, ModelToScore, open_evaluator
from ragcun_cli.manifest import problem_with, seal
from ragcun_cli.results.model_entry import ModelEntry

FORMAT = 1
LEAST_BYTES_OF_A_TRIPLE = 40  # its keys alone
INTERRUPTED = "Interrupted. What was embedded and searched is kept: the same command continues from there."
SHUFFLED = 1 << 16  # passages: from more, so few are drawn that drawing one twice costs less than shuffling all
MOST_COPIES = 1000  # of other passages, which may appear in the ranking of a query and are skipped
QUERIES_AT_A_TIME = 4096  # what an interruption costs at most; one pass over the passages each

Pick = Literal["hardest", "sample", "corpus"]


@dataclass(frozen=True)
class Mining:
    """What to mine. first_rank, last_rank: among the passages that are not known to be relevant, from 1. margin: how
    much farther than the positive a negative must be, as a share of the positive's distance; None for no margin.
    pick: the nearest in the range, random ones in it, or random ones in the corpus, which needs no encoder.
    """

    negatives: int = 1
    first_rank: int = 1
    last_rank: int = 100
    margin: float | None = None
    pick: Pick = "hardest"
    seed: int = 0


@dataclass(frozen=True)
class Mined:
    """What was mined. pairs: query and relevant passage; without_text: relevant passages that are empty, hence no pair;
    short: pairs with fewer negatives than asked; none: with none at all; nearer_left_out: passages in the range that
    the margin left out. excluded: pairs left out because they are in an excluded collection.
    """

    pairs: int
    without_text: int
    negatives: int
    short: int
    none: int
    nearer_left_out: int
    mean_rank: float | None
    excluded: int = 0


def mine(
    collection: Collection,
    model: ModelToScore | None,
    settings: EvaluationSettings,
    mining: Mining,
    output: Path,
    excluded: Excluded | None = None,
) -> Mined:
    """Write one triple per line for each query and relevant passage, and beside it `<output>.provenance.json`.

    Raises:
        UsageError: if the ranks make no sense for this collection.
        RagcunError: as raised by opening the model, embedding and searching.
    """
    files.require_writable(provenance_path(output))
    files.require_writable(output, len(collection.queries) * LEAST_BYTES_OF_A_TRIPLE)
    if excluded is not None and not any(_may_stay(collection, *pair, excluded) for pair in _pairs(collection)):
        raise DataError("--exclude leaves no pair of this collection", "Mine another split, or exclude less.")
    if mining.first_rank > len(collection.corpus):
        raise UsageError(f"--ranks: the corpus has only {len(collection.corpus)} passages", "Ask for lower ranks.")
    known = _known_relevant(collection)
    if mining.pick == "corpus" or model is None:
        with StepProgress("picking", len(collection.queries), "queries") as bar:
            mined = _write(collection, _anywhere(collection, known, mining, bar.advance), output, excluded)
        _write_provenance(collection, None, mining, mined, output, excluded)
        return mined
    with saying_if_interrupted(INTERRUPTED):
        return _mine_near(collection, model, settings, mining, known, output, excluded)


def _mine_near(
    collection: Collection,
    model: ModelToScore,
    settings: EvaluationSettings,
    mining: Mining,
    known: list[set[int]],
    output: Path,
    excluded: Excluded | None,
) -> Mined:
    copies = len(collection.corpus) - len(np.unique(collection.corpus.keys))
    depth = min(len(collection.corpus), mining.last_rank + max(map(len, known)) + min(copies, MOST_COPIES))
    with open_evaluator(model, settings) as bench:
        with StepProgress("embedding", len(collection.corpus) + len(collection.queries), "texts") as bar:
            embedded = bench.embed(collection, bar.advance)
        parts = _rankings_folder(bench, collection, depth)
        with only_writer(parts):
            choices = _from_rankings(collection, known, mining, bench, embedded, parts, depth)
            mined = _write(collection, choices, output, excluded)
            _write_provenance(collection, bench.entry, mining, mined, output, excluded)
            shutil.rmtree(parts, ignore_errors=True)
    return mined


@dataclass(frozen=True)
class _Choice:
    """The negatives of one query and relevant passage, as corpus rows with their ranks."""

    query: int
    positive: int
    negatives: Numbers
    ranks: Numbers
    short: bool
    nearer: int


def _known_relevant(collection: Collection) -> list[set[int]]:
    """Return, for each query, the corpus rows that cannot be its negatives."""
    corpus = collection.corpus
    known_set = known_dataset(collection.name)
    order = np.argsort(corpus.keys, kind="stable")
    ascending = corpus.keys[order]

    def with_text_of(keys: Any) -> set[int]:
        starts, stops = (np.searchsorted(ascending, keys, side=side) for side in ("left", "right"))
        pairs = zip(starts.tolist(), stops.tolist(), strict=True)
        return {int(row) for start, stop in pairs for row in order[start:stop]}

    elsewhere = _relevant_in_other_splits(collection)
    found = []
    for query_id, query in zip(collection.query_ids, collection.queries, strict=True):
        relevant = [*_relevant(collection, query_id), *elsewhere.get(query_id, [])]
        # An empty passage is not a negative either: training refuses it.
        rows = with_text_of(np.concatenate([corpus.keys[relevant], keys_of([query, ""])]))
        itself = corpus.row_of(query_id) if known_set is not None and known_set.queries_in_corpus else None
        found.append(rows | set(relevant) | ({itself} if itself is not None else set()))
    return found


def _relevant_in_other_splits(collection: Collection) -> dict[str, list[int]]:
    """Return corpus rows by query id: the same query may be judged in another split too."""
    asked, found = set(collection.query_ids), dict[str, list[int]]()
    folder = collection.qrels_path.parent.parent
    for path in (qrels_path(folder, split) for split in splits_in(folder)):
        if path == collection.qrels_path:
            continue
        for _, query_id, passage_id, grade in qrels_lines(path, str(path)):
            row = collection.corpus.row_of(passage_id) if query_id in asked and grade > 0 else None
            if row is not None:
                found.setdefault(query_id, []).append(row)
    return found


def _relevant(collection: Collection, query_id: str) -> list[int]:
    rows = (collection.corpus.row_of(each) for each, grade in collection.qrels[query_id].items() if grade > 0)
    return [row for row in rows if row is not None]


def _anywhere(
    collection: Collection, known: list[set[int]], mining: Mining, on_query: Callable[[], None]
) -> Iterator[_Choice]:
    """Choose random passages from the whole corpus."""
    size = len(collection.corpus)
    for query, query_id in enumerate(collection.query_ids):
        for positive in _relevant(collection, query_id):
            random = _generator(mining, query_id, positive)
            wanted = min(mining.negatives, size - len(known[query]))
            chosen: list[int] = []
            texts: set[bytes] = set()  # by their keys
            for row in _in_random_order(random, size):
                if len(chosen) == wanted:
                    break
                key = collection.corpus.keys[row].tobytes()
                if row not in known[query] and key not in texts:
                    chosen.append(row)
                    texts.add(key)
            rows = np.array(chosen, dtype=np.int64)
            yield _Choice(query, positive, rows, np.empty(0, dtype=np.int64), len(chosen) < mining.negatives, 0)
        on_query()


def _in_random_order(random: np.random.Generator, size: int) -> Iterator[int]:
    """Yield each passage of a small corpus once; from a large one, more draws than there are negatives to ask for."""
    if size <= SHUFFLED:
        yield from random.permutation(size).tolist()
        return
    for _ in range(SHUFFLED):
        yield int(random.integers(size))


def _from_rankings(
    collection: Collection,
    known: list[set[int]],
    mining: Mining,
    bench: ModelEvaluator,
    embedded: Embedded,
    parts: Path,
    depth: int,
) -> Iterator[_Choice]:
    total = len(collection.queries)
    with StepProgress("searching", total, "queries") as bar:
        for start in range(0, total, QUERIES_AT_A_TIME):
            queries = np.arange(start, min(start + QUERIES_AT_A_TIME, total))
            rows, distances = _ranking(bench, embedded, queries, parts / f"{start:010}", depth)
            relevant = [_relevant(collection, collection.query_ids[query]) for query in queries.tolist()]
            to_positives = _distances(embedded, queries, relevant)
            for place, query in enumerate(queries.tolist()):
                others = np.flatnonzero([row not in known[query] for row in rows[place].tolist()])
                _, first = np.unique(collection.corpus.keys[rows[place][others]], return_index=True)
                others = others[np.sort(first)]  # of passages with the same text, only the nearest is kept
                candidates, far = rows[place][others], distances[place][others]
                for positive, distance in zip(relevant[place], to_positives[place], strict=True):
                    draw = functools.partial(_generator, mining, collection.query_ids[query], positive)
                    yield _choose(query, positive, candidates, far, distance, mining, draw)
            bar.advance(len(queries))


def _ranking(
    bench: ModelEvaluator, embedded: Embedded, queries: Numbers, part: Path, depth: int
) -> tuple[Numbers, Figures]:
    """Return (n, depth) corpus rows and Euclidean distances of these queries, searched unless already kept."""
    if not part.is_dir() or problem_with(part) is not None:
        files.sweep_leftovers(part.parent, part.name)
        ranking = bench.search()(embedded.queries[queries], embedded.passages, depth)
        with files.new_folder(part) as temporary:
            np.save(temporary / "rows.npy", ranking.passages)
            np.save(temporary / "distances.npy", np.sqrt(ranking.distances))
            seal(temporary, format=FORMAT)
    return np.load(part / "rows.npy", mmap_mode="r"), np.load(part / "distances.npy", mmap_mode="r")


def _distances(embedded: Embedded, queries: Numbers, rows: list[list[int]]) -> list[list[float]]:
    """Return the distances from each query to its corpus rows, whose vectors are read once for all queries."""
    distinct = np.array(sorted({row for of_query in rows for row in of_query}), dtype=np.int64)
    vectors = embedded.passages.of_passages(distinct).astype(np.float64)
    found = []
    for query, of_query in zip(queries.tolist(), rows, strict=True):
        theirs = vectors[np.searchsorted(distinct, of_query)] if of_query else vectors[:0]
        found.append(np.linalg.norm(theirs - embedded.queries[query], axis=1).tolist())
    return found


def _choose(
    query: int,
    positive: int,
    rows: Numbers,
    distances: Figures,
    to_positive: float,
    mining: Mining,
    generator: Callable[[], np.random.Generator],
) -> _Choice:
    """Choose a pair's negatives. rows, distances: of the passages that may be negatives, nearest first."""
    in_range = slice(mining.first_rank - 1, mining.last_rank)
    rows, distances = rows[in_range], distances[in_range]
    ranks = np.arange(mining.first_rank, mining.first_rank + len(rows))
    far = np.ones(len(rows), dtype=bool)
    if mining.margin is not None:
        far = distances >= to_positive * (1 + mining.margin)
    allowed = np.flatnonzero(far)
    if mining.pick == "sample":
        taken = np.sort(generator().choice(allowed, min(mining.negatives, len(allowed)), replace=False))
    else:
        taken = allowed[: mining.negatives]
    return _Choice(query, positive, rows[taken], ranks[taken], len(taken) < mining.negatives, int((~far).sum()))


def _generator(mining: Mining, query_id: str, positive: int) -> np.random.Generator:
    """Return the same generator for a query and passage, whatever the order, the parts and any interruption."""
    return np.random.default_rng([mining.seed, int(key_of(query=query_id, positive=positive)[:12], 16)])


def _rankings_folder(bench: ModelEvaluator, collection: Collection, depth: int) -> Path:
    entry = {name: getattr(bench.entry, name) for name in ("identity", "max_length", "precision", "tokenizer_sha256")}
    key = key_of(format=FORMAT, collection=collection.sha256, depth=depth, part=QUERIES_AT_A_TIME, **entry)
    return cache_folder() / "mined" / key


def _write(collection: Collection, choices: Iterator[_Choice], output: Path, excluded: Excluded | None = None) -> Mined:
    pairs = without_text = negatives = short = none = nearer = rank_sum = ranked = left_out = 0
    with files.replacing(output) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for choice in choices:
            if excluded is not None and not _may_stay(collection, choice.query, choice.positive, excluded):
                left_out += 1
                continue
            texts = collection.corpus.texts(np.array([choice.positive, *choice.negatives], dtype=np.int64))
            if not texts[0]:
                without_text += 1
                continue
            record: dict[str, Any] = {"query": collection.queries[choice.query], "positive": texts[0]}
            if len(texts) == 2:
                record["negative"] = texts[1]
            elif len(texts) > 2:
                record["negatives"] = texts[1:]
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            pairs += 1
            negatives += len(choice.negatives)
            short += choice.short
            none += not len(choice.negatives)
            nearer += choice.nearer
            rank_sum += int(choice.ranks.sum())
            ranked += len(choice.ranks)
    mean_rank = rank_sum / ranked if ranked else None
    return Mined(pairs, without_text, negatives, short, none, nearer, mean_rank, left_out)


def _pairs(collection: Collection) -> Iterator[tuple[int, int]]:
    """Yield the numbers of each query and of each passage that is relevant to it."""
    for query, identity in enumerate(collection.query_ids):
        rows = (collection.corpus.row_of(passage) for passage, grade in collection.qrels[identity].items() if grade > 0)
        yield from ((query, row) for row in rows if row is not None)


def _may_stay(collection: Collection, query: int, positive: int, excluded: Excluded) -> bool:
    """Whether a pair contains nothing that is excluded."""
    key = collection.corpus.keys[positive].tobytes()
    return not excluded.has_query(collection.queries[query]) and not excluded.has_answer(key)


def _write_provenance(
    collection: Collection,
    model: ModelEntry | None,
    mining: Mining,
    mined: Mined,
    output: Path,
    excluded: Excluded | None,
) -> None:
    content = {
        "ragcun": __version__,
        "collection": {"name": collection.name, "split": collection.split, "sha256": collection.sha256},
        "model": None if model is None else model.content(),
        "mining": asdict(mining),
        "mined": asdict(mined),
        "excluded": None if excluded is None else {"collections": list(excluded.names), "sha256": excluded.sha256},
        "sha256": files.sha256_of_file(output),
    }
    files.write_json(provenance_path(output), content)
    note(f"{output}: {mined.pairs} triples with {mined.negatives} negatives.")
