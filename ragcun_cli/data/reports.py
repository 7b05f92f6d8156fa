"""`ragcun data check`: find the named data, check them, and report dev and test texts that they contain."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.data.checking import (
    CheckReport,
    CountTokens,
    check_against,
    check_collection,
    check_triples,
    look_at_batches,
    look_for_broken_rows,
)
from ragcun_cli.data.collection import LAYOUT, Collection, collections_in, read_collection, read_folder
from ragcun_cli.data.exclusion import Excluded, unused_name, without, write_clean
from ragcun_cli.data.naming import is_zip
from ragcun_cli.data.qrels import splits_in
from ragcun_cli.data.registry import BEIR, KNOWN, TRAINING
from ragcun_cli.data.sources import collection_in, dev_collection, named_collection, training_file
from ragcun_cli.data.triples.prepared import TRAIN_SPLIT, open_triples
from ragcun_cli.data.triples.table import TripleTable
from ragcun_cli.errors import UsageError

DEV = "the dev set"  # in findings


@dataclass(frozen=True)
class CheckOptions:
    """Options of a check. root: the data folder. dev: None for the training set's own, if any. against: names or paths
    of test sets (default: BEIR's in the data folder). count_tokens: None to skip lengths; limit: number of tokens
    above which a text counts as cut. batch_size: for training. write: file for triples that contain nothing from dev
    or test sets.
    """

    root: Path
    dev: str | None = None
    against: Sequence[str] = ()
    count_tokens: CountTokens | None = None
    limit: int = 384
    batch_size: int = 16
    write: Path | None = None


def check_source(source: str, wishes: CheckOptions) -> list[CheckReport]:
    """Report on a training file or a training set of the registry, or on each part of a collection.

    Raises:
        UsageError, DataError: if it cannot be found or read.
    """
    path = training_file(source, wishes.root, "")
    if path.is_dir() or is_zip(path):
        parts = collections_in(path)
        if wishes.write is not None and len(parts) > 1:
            raise UsageError(
                f"--write: {source} contains {len(parts)} collections",
                f"Name one of them, such as {next(iter(parts.values()))}.",
            )
        # Show the user's own path if possible, not the path in the cache.
        return [_of_collection(part, path if len(parts) == 1 else part, name, wishes) for name, part in parts.items()]
    table, _ = open_triples(path, max_bad_rows=None)
    report = check_triples(table, source, wishes.count_tokens, wishes.limit)
    look_at_batches(report, table, wishes.batch_size)
    own = source if wishes.dev is None and source in TRAINING else wishes.dev
    others = _check_leakage(report, table, dataclasses.replace(wishes, dev=own))
    _write_clean(report, table, others, source, wishes.write)
    return [report]


def _write_clean(
    report: CheckReport, table: TripleTable, others: dict[str, Collection], source: str, write: Path | None
) -> None:
    if write is None:
        return
    named = {
        f"{each.name} ({each.split})" if name == DEV else f"{name} ({each.split})": each
        for name, each in others.items()
    }
    excluded = Excluded.of(named)
    clean, counts = without(table, excluded)
    write_clean(clean, write, source, {"excluded": excluded.provenance(counts)})
    report.written = f"{write}: {len(clean)} triples; {counts.sentence}"


def _check_leakage(
    report: CheckReport, table: TripleTable, wishes: CheckOptions, leave_out: str = ""
) -> dict[str, Collection]:
    """Report dev and test texts among the triples, and return these sets."""
    dev, root = wishes.dev, wishes.root
    others, absent = _tests(root, wishes.against, leave_out)
    if dev is not None:
        found = read_collection(dev_collection(dev, root), preferred=("dev", "test"))
        others = {DEV: found, **others}
    else:
        report.not_checked.append("overlap with a dev set: none is given (--dev)")
    check_against(report, table, others)
    report.not_checked += absent
    return others


def _of_collection(folder: Path, shown: Path, name: str, wishes: CheckOptions) -> CheckReport:
    # Train first and test last: queries are reported in the later of two splits that share them.
    order = sorted(splits_in(folder), key=lambda split: (split == "test", split != TRAIN_SPLIT, split))
    splits = {split: read_folder(folder, name, split, str(shown)) for split in order}
    if not splits:
        raise UsageError(f"{shown}: no judgements: qrels/<split>.tsv is missing", LAYOUT)
    if wishes.write is not None and TRAIN_SPLIT not in splits:
        raise UsageError(f"--write: {shown} has no {TRAIN_SPLIT} split and so no triples", "Name a file of triples.")
    report = check_collection(splits, name, wishes.count_tokens, wishes.limit)
    if TRAIN_SPLIT in splits:
        table, _ = open_triples(shown, max_bad_rows=None)
        look_for_broken_rows(report, table)
        look_at_batches(report, table, wishes.batch_size)
        # The queries of its own splits were compared above, and these splits share their passages.
        others = _check_leakage(report, table, wishes, leave_out=name)
        own = {f"{name} {split}": each for split, each in splits.items() if split != TRAIN_SPLIT}
        _write_clean(report, table, {**own, **others}, str(shown), wishes.write)
    return report


def _tests(root: Path, names: Sequence[str], leave_out: str) -> tuple[dict[str, Collection], list[str]]:
    """Return test sets by name, and a note on the BEIR sets that are missing."""
    found: dict[str, Collection] = {}
    absent = []
    for name in names or BEIR:
        known = KNOWN.get(name.lower())
        path = collection_in(root, known.name) if known is not None else named_collection(name, root, "--against ")
        if name == leave_out:
            continue
        if path is None:
            assert known is not None
            if names:
                raise UsageError(f"--against: {name} is not in {root}/", f"Get it with: {known.how_to_get(str(root))}")
            absent.append(known.name)
            continue
        for part, folder in collections_in(path).items():
            found[unused_name(found, part, str(folder))] = read_folder(
                folder, part, known.score_split if known else None, str(folder)
            )
    reason = f"overlap with test sets that are not in {root}/: {', '.join(absent)}"
    return found, [reason] if absent else []
