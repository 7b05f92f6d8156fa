"""Turn MS MARCO's downloaded training files into triples and a dev set that training never sees.

One query in a hundred is held out, chosen by a hash of its words and so the same ones in every file. The passages of
held-out queries form the dev corpus; every other row that has one of them, as positive or negative, is left out.
"""

from __future__ import annotations

import hashlib
import itertools
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from ragcun_cli import files
from ragcun_cli.console import note
from ragcun_cli.data.cache import cache_folder, only_writer
from ragcun_cli.data.collection_writer import passage_record, write_beir_layout
from ragcun_cli.data.digests import sha256_of
from ragcun_cli.data.exclusion import normalised_words
from ragcun_cli.data.registry import TRAINING, TrainingSet
from ragcun_cli.data.sources import DEV_FOLDER, TRAIN_FILE, source_path, training_folder
from ragcun_cli.data.triples.columns import Columns
from ragcun_cli.data.triples.reading_delimited import block_of_cells
from ragcun_cli.data.triples.reading_parquet import read_parquet
from ragcun_cli.data.triples.rows import BrokenRows, RowBlock, clean, lists_of, negative_counts
from ragcun_cli.errors import DataError
from ragcun_cli.manifest import problem_with, read_manifest, seal

FORMAT = 1
HELD_OUT = 100  # hold out one query in this many
SMALL_TRIPLES = 39_780_811  # number of lines in triples.train.small
ROWS_AT_A_TIME = 20_000
SCHEMA = pa.schema([("query", pa.string()), ("positive", pa.string()), ("negative", pa.string())])


@dataclass
class _Dev:
    """Held-out queries, keyed by their words, and the texts of their passages. passages: text -> id."""

    queries: dict[str, str] = field(default_factory=dict)
    relevant: dict[str, set[str]] = field(default_factory=dict)
    passages: dict[str, str] = field(default_factory=dict)

    def add(self, query: str, positive: str, negatives: list[str]) -> None:
        words = normalised_words(query)
        self.queries.setdefault(words, query)
        self.relevant.setdefault(words, set()).add(positive)
        for text in (positive, *negatives):
            self.passages.setdefault(text, f"p{len(self.passages)}")


def prepare_training_sets(names: Sequence[str], root: Path) -> None:
    """Prepare the named training sets of the registry, whose files have been downloaded."""
    for name in names:
        sources = [source_path(root, name, file) for file in TRAINING[name].files]
        prepare_training_set(TRAINING[name], sources, root)


def prepare_training_set(training_set: TrainingSet, sources: list[Path], root: Path) -> Path:
    """Make `<data folder>/triples/<name>/` with train.parquet and dev/ from the downloaded files, and return it.

    Raises:
        DataError: if a file does not have the expected content.
    """
    folder = training_folder(root, training_set.name)
    of_sources = [sha256_of(path, cache_folder()) for path in sources]
    with only_writer(folder):
        if problem_with(folder) is None and read_manifest(folder).get("sources") == of_sources:
            return folder
        files.sweep_leftovers(folder.parent, folder.name)
        _prepare(training_set, sources, of_sources, folder)
    return folder


def _prepare(training_set: TrainingSet, sources: list[Path], of_sources: list[str], folder: Path) -> None:
    note(f"{training_set.name}: making {folder}/{TRAIN_FILE} and {folder}/{DEV_FOLDER} ...")
    reader = _READERS[training_set.shape]

    def blocks() -> Iterator[RowBlock]:
        for path in sources:
            yield from reader(path, training_set)

    dev, broken = _Dev(), BrokenRows()
    for block in broken.seen(blocks()):
        for row in np.flatnonzero(_held_out(block)).tolist():
            dev.add(block.queries[row].as_py(), block.positives[row].as_py(), block.negatives[row].as_py())
    if not dev.queries:
        raise DataError(f"{sources[0]}: too few queries to hold any out", "Check that this is the published file.")
    with files.new_folder(folder) as temporary:
        written, left_out = _write_train(blocks(), dev, temporary / TRAIN_FILE)
        _write_dev(dev, temporary / DEV_FOLDER)
        seal(
            temporary,
            format=FORMAT,
            sources=of_sources,
            triples=written,
            dev_queries=len(dev.queries),
            dev_passages=len(dev.passages),
            left_out_for_dev=left_out,
            broken=broken.count,
            first_broken=broken.first,
        )
    note(
        f"{folder}: {written} triples; dev: {len(dev.queries)} queries, {len(dev.passages)} passages; {left_out} other "
        "rows containing these passages left out."
    )
    if broken.count:
        note(f"{broken.count} broken rows left out:\n{broken.listed()}")


def is_held_out(query: str) -> bool:
    """Return whether a query belongs to the dev set."""
    digest = hashlib.blake2b(normalised_words(query).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % HELD_OUT == 0


def _held_out(block: RowBlock) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.fromiter((is_held_out(query) for query in block.queries.to_pylist()), dtype=bool, count=len(block))


def _write_train(blocks: Iterator[RowBlock], dev: _Dev, path: Path) -> tuple[int, int]:
    """Write the triples. Return how many were written, and how many rows were left out for a dev passage."""
    seen = pa.array(list(dev.passages), pa.string())
    written = left_out = 0
    with pyarrow.parquet.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for block in blocks:
            held_out = _held_out(block)
            with_dev = pc.is_in(block.positives, value_set=seen).to_numpy(zero_copy_only=False)
            owners = pc.list_parent_indices(block.negatives).to_numpy()
            with_dev[owners[pc.is_in(block.negatives.flatten(), value_set=seen).to_numpy(zero_copy_only=False)]] = True
            left_out += int((with_dev & ~held_out).sum())
            kept = pa.array(np.flatnonzero(~held_out & ~with_dev))
            negatives = pc.list_element(block.negatives.take(kept), 0)
            rows = [block.queries.take(kept), block.positives.take(kept), negatives]
            writer.write_table(pa.table(rows, schema=SCHEMA))
            written += len(kept)
    return written, left_out


def _write_dev(dev: _Dev, folder: Path) -> None:
    ids = {words: f"q{number}" for number, words in enumerate(dev.queries)}
    write_beir_layout(
        folder,
        "dev",
        (passage_record(identity, text) for text, identity in dev.passages.items()),
        ((ids[words], query) for words, query in dev.queries.items()),
        (
            (ids[words], identity, 1)
            for words, positives in dev.relevant.items()
            for identity in sorted(dev.passages[text] for text in positives)
        ),
    )


def _triplets(path: Path, training_set: TrainingSet) -> Iterator[RowBlock]:
    columns, blocks = read_parquet(path)
    if len(columns.negatives) != 1:
        raise DataError(f"{path}: expected columns query, positive and negative (got {columns.described(False)})")
    return (_with_negative(block, path) for block in blocks)


def _with_negative(block: RowBlock, path: Path) -> RowBlock:
    """Keep only rows with a negative, so that every query of a run has equally many."""
    counts = negative_counts(block)
    kept = pa.array(np.flatnonzero(counts > 0))
    without = [f"{path}: row without a negative"] * int((counts == 0).sum())
    broken = block.broken + without
    return RowBlock(block.queries.take(kept), block.positives.take(kept), block.negatives.take(kept), broken)


def _official(path: Path, training_set: TrainingSet) -> Iterator[RowBlock]:
    """Read every n-th line of the tar's only file, which has query, positive and negative separated by tabs."""
    step = SMALL_TRIPLES // training_set.rows
    names = ["query", "positive", "negative"]
    columns = Columns("query", "positive", ("negative",))
    try:
        with tarfile.open(path, "r|gz") as archive:
            member = next((each for each in archive if each.isfile()), None)
            stream = archive.extractfile(member) if member is not None else None
            if stream is None:
                raise DataError(f"{path}: the archive contains no file")
            lines = itertools.islice(enumerate(stream, start=1), 0, None, step)
            while some := list(itertools.islice(lines, ROWS_AT_A_TIME)):
                # Invalid UTF-8 is replaced, because the file is known to mix encodings.
                rows = ((number, line.decode("utf-8", "replace").rstrip("\r\n").split("\t")) for number, line in some)
                yield _with_negative(block_of_cells(rows, columns, names, f"{path}, its line", []), path)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path}: damaged or incomplete ({error})", "Download it again.") from None


def _judged_passages(path: Path, training_set: TrainingSet) -> Iterator[RowBlock]:
    """Pair each selected passage of a query's ten with one that the annotators did not select."""
    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches(ROWS_AT_A_TIME, columns=["query", "passages"])
        first = 1
        for batch in batches:
            yield _pairs(batch, path, first)
            first += batch.num_rows
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{path}: damaged, or not an ms_marco file ({error})", "Download it again.") from None


def _pairs(batch: pa.RecordBatch, path: Path, first: int) -> RowBlock:
    passages = batch["passages"]
    selected, texts = (pc.struct_field(passages, name) for name in ("is_selected", "passage_text"))
    flags, ends = selected.flatten().to_numpy(), np.cumsum(pc.list_value_length(selected).to_numpy())
    rows, positives, negatives = [], [], []
    for row, (start, end) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        chosen = np.flatnonzero(flags[start:end] == 1) + start
        others = np.flatnonzero(flags[start:end] != 1) + start
        for number, positive in enumerate(chosen.tolist() if len(others) else []):
            rows.append(row)
            positives.append(positive)
            # Choose an arbitrary other passage, but always the same one: by row, so not always the first.
            negatives.append(int(others[(first + row + number) % len(others)]))
    flat = texts.flatten()
    lists = lists_of(flat.take(pa.array(negatives, pa.int64())), np.ones(len(rows), dtype=np.int64))
    block = RowBlock(batch["query"].take(pa.array(rows, pa.int64())), flat.take(pa.array(positives, pa.int64())), lists)
    return clean(block, lambda place: f"{path}: row {first + rows[place]}")


_READERS: dict[str, Callable[[Path, TrainingSet], Iterator[RowBlock]]] = {
    "triplets": _triplets,
    "tsv in tar": _official,
    "judged passages": _judged_passages,
}
