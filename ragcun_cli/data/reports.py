"""`ragcun data check`: from a name to the reports on what it means, and on what of dev and test sets it contains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.checking import (
    CheckReport,
    CountTokens,
    check_against,
    check_collection,
    check_triples,
    look_for_broken_rows,
)
from ragcun_cli.data.collection import CORPUS, LAYOUT, Collection, is_there, read_collection, read_folder
from ragcun_cli.data.naming import is_zip, name_of
from ragcun_cli.data.qrels import splits_in
from ragcun_cli.data.registry import BEIR, KNOWN, TRAINING
from ragcun_cli.data.sources import collection_in, dev_collection, named_collection, training_file
from ragcun_cli.data.triples.prepared import TRAIN_SPLIT, open_triples
from ragcun_cli.data.triples.table import TripleTable
from ragcun_cli.data.unpacked import unpack
from ragcun_cli.errors import UsageError


def check_source(
    source: str,
    root: Path,
    dev: str | None,
    against: Sequence[str],
    count_tokens: CountTokens | None,
    limit: int,
) -> list[CheckReport]:
    """The report on a training file or a training set of the registry; on a collection one for each of its parts.

    dev: None for the training set's own, if it has one. against: names or paths of test sets; by default those of
    BEIR that are in the data folder.

    Raises:
        UsageError, DataError: as reading it says.
    """
    path = training_file(source, root, "")
    if path.is_dir() or is_zip(path):
        parts = _parts(path)
        return [
            # Named as the user did, where that is possible, and not by its place in the cache.
            _of_collection(part, path if len(parts) == 1 else part, name, root, dev, against, count_tokens, limit)
            for name, part in parts.items()
        ]
    table, _ = open_triples(path, max_bad_rows=None)
    report = check_triples(table, source, count_tokens, limit)
    _check_leakage(report, table, root, source if dev is None and source in TRAINING else dev, against)
    return [report]


def _check_leakage(
    report: CheckReport, table: TripleTable, root: Path, dev: str | None, against: Sequence[str], leave_out: str = ""
) -> None:
    others, absent = _tests(root, against, leave_out)
    if dev is not None:
        found = read_collection(dev_collection(dev, root), preferred=("dev", "test"))
        others = {"the dev set": found, **others}
    else:
        report.not_checked.append("leakage into a dev set: none is named (--dev)")
    check_against(report, table, others)
    report.not_checked += absent


def _of_collection(
    folder: Path,
    shown: Path,
    name: str,
    root: Path,
    dev: str | None,
    against: Sequence[str],
    count_tokens: CountTokens | None,
    limit: int,
) -> CheckReport:
    # Train first and test last: it is the later one whose queries an earlier one has.
    order = sorted(splits_in(folder), key=lambda split: (split == "test", split != TRAIN_SPLIT, split))
    splits = {split: read_folder(folder, name, split, str(shown)) for split in order}
    if not splits:
        raise UsageError(f"{shown}: there are no judgements: qrels/<split>.tsv is missing", LAYOUT)
    report = check_collection(splits, name, count_tokens, limit)
    if TRAIN_SPLIT in splits:
        table, _ = open_triples(shown, max_bad_rows=None)
        look_for_broken_rows(report, table)
        # Of its own splits the queries were compared above, and the passages are shared.
        _check_leakage(report, table, root, dev, against, leave_out=name)
    return report


def _parts(path: Path) -> dict[str, Path]:
    """Name -> folder of the collection, or of CQADupStack's forums."""
    folder = path if path.is_dir() else unpack(path, cache_folder())
    name = name_of(path)
    if is_there(folder, CORPUS):
        return {name: folder}
    parts = {f"{name}/{part.name}": part for part in sorted(folder.iterdir()) if is_there(part, CORPUS)}
    if not parts:
        raise UsageError(f"{path}: not a collection in BEIR's layout: {CORPUS} is missing", LAYOUT)
    return parts


def _tests(root: Path, names: Sequence[str], leave_out: str) -> tuple[dict[str, Collection], list[str]]:
    """Test sets by name, and why those of BEIR that are not here could not be looked at."""
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
                raise UsageError(
                    f"--against: {name} is not in {root}/", f"It comes with: {known.how_to_get(str(root))}"
                )
            absent.append(known.name)
            continue
        for part, folder in _parts(path).items():
            found[part] = read_folder(folder, part, known.score_split if known else None, str(folder))
    reason = f"leakage into test sets that are not in {root}/: {', '.join(absent)}"
    return found, [reason] if absent else []
