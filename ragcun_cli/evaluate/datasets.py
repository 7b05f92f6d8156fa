"""Resolve what `--datasets` names to collections that are here, and missing ones with how to get them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.console import note
from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.collection import CORPUS, QUERIES, Collection, is_there, read_folder
from ragcun_cli.data.naming import is_zip, name_of
from ragcun_cli.data.registry import GROUPS, KNOWN, KnownDataset, known_dataset
from ragcun_cli.data.sources import available_collections, collection_in, embedded_test
from ragcun_cli.data.unpacked import unpack
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.files import expanded
from ragcun_cli.recipe.problems import did_you_mean
from ragcun_cli.results.layout import scored_on

RESERVED_NAMES = frozenset({"model", "isotropy"})  # files of a results folder


@dataclass(frozen=True)
class Dataset:
    """A column of the table: one collection, or the forums of CQADupStack.

    path: where it was found. parts: part name -> collection; a single part has the dataset's name. counts: how they
    differ from the published ones, empty if they do not or none are published.
    """

    name: str
    path: Path
    parts: dict[str, Collection]
    known: KnownDataset | None
    counts: tuple[str, ...]

    @property
    def split(self) -> str:
        """The split whose qrels are scored."""
        return next(iter(self.parts.values())).split

    @property
    def queries(self) -> int:
        """The number of queries that are scored."""
        return sum(len(part.queries) for part in self.parts.values())

    @property
    def scored(self) -> str:
        """What a score on this dataset is computed on, for display."""
        return scored_on(self.name, self.split, self.queries)

    @property
    def sha256(self) -> str:
        """The digest of all texts and judgements."""
        if len(self.parts) == 1:
            return next(iter(self.parts.values())).sha256
        joined = "\n".join(f"{name} {part.sha256}" for name, part in self.parts.items())
        return hashlib.sha256(joined.encode()).hexdigest()

    @property
    def texts(self) -> int:
        """The number of passages and queries."""
        return sum(len(part.corpus) + len(part.queries) for part in self.parts.values())


@dataclass(frozen=True)
class Missing:
    """A known dataset that is not here, and how to get it."""

    name: str
    how: str


def find_datasets(names: Sequence[str], data_folder: Path, split: str | None) -> tuple[list[Dataset], list[Missing]]:
    """Find all collections before the first model is loaded: a wrong name then costs seconds, not hours.

    Args:
        names: `all`, `public`, registered names, names in the data folder, or paths.
        data_folder: where named datasets are, as folders or zips.
        split: the qrels to score; each dataset's own by default.

    Raises:
        UsageError: if a name is none of these, or none of those named is here.
        DataError: as `read_folder` and `unpack` say.
    """
    found: list[Dataset] = []
    missing: list[Missing] = []
    for name in dict.fromkeys(each for asked in names for each in GROUPS.get(asked, (asked,))):
        path = _locate(name, data_folder)
        known = KNOWN.get(name.lower())
        lacking = "" if path is None or known is None else _lacking(path, known)
        if path is None or lacking:
            assert known is not None
            missing.append(Missing(known.name, lacking + known.how_to_get(str(data_folder))))
            continue
        dataset = _read(path, split, known.md5 if known is not None else None)
        twin = next((other for other in found if other.name == dataset.name), None)
        if twin is not None:
            raise UsageError(
                f"--datasets: {name} is the second dataset called {dataset.name}",
                "Results are filed by the dataset's name; rename one, or evaluate one at a time.",
            )
        found.append(dataset)
    if not found:
        listed = "\n".join(f"{each.name}: {each.how}" for each in missing)
        raise UsageError(
            f"--datasets: none of these is in {data_folder}/\n{listed}", "Get one, or give their folder: --data-dir."
        )
    return found, missing


def _locate(name: str, folder: Path) -> Path | None:
    """Find the folder or zip; None for a registered dataset that is not in the data folder.

    A bare registered name is looked up in the data folder only: a folder of that name that happens to be here
    may be anything.
    """
    embedded = embedded_test(name, folder)
    if embedded is not None:
        return embedded
    known = KNOWN.get(name.lower())
    path = expanded(name)
    if known is None and _is_collection(path):
        return path
    found = collection_in(folder, known.name if known else name)
    if found is not None and _is_collection(found):
        return found
    if known is not None:
        return None
    here = available_collections(folder)
    raise UsageError(
        f"{name}: there is no such dataset; {did_you_mean(name, [*here, *GROUPS, *KNOWN])}",
        "Give a folder or zip in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/), its name in --data-dir, "
        f"{' or '.join(GROUPS)}.",
    )


def _lacking(path: Path, known: KnownDataset) -> str:
    """Say what a registered dataset's folder lacks, to begin the advice with; empty if it lacks nothing."""
    if path.is_file():
        return ""
    forums = known.forums if not is_there(path, CORPUS) else ()
    parts = [path / forum for forum in forums] or [path]
    absent = [
        str((part / needed).relative_to(path))
        for part in parts
        for needed in (CORPUS, QUERIES, "qrels")
        if not ((part / needed).exists() or is_there(part, needed))
    ]
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    return f"{path}/ lacks {absent[0]}{more}; " if absent else ""


def _is_collection(path: Path) -> bool:
    return path.is_dir() or (is_zip(path) and path.is_file())


def _read(path: Path, split: str | None, md5: str | None) -> Dataset:
    """Read a dataset. md5: that which a zip found by a registered name must have."""
    name = name_of(path)
    known = known_dataset(name)
    if name in RESERVED_NAMES:
        raise UsageError(f"{path}: a dataset cannot be called {name!r}", "Rename its folder.")
    folder = path
    if path.is_file():
        folder = unpack(path, cache_folder(), md5)
    # Keep the split unless asked: MS MARCO's `test` is TREC-DL 2019, where BM25 scores twice as high as on `dev`, and
    # a dev set on which the model was chosen flatters it.
    split = split or (known.score_split if known is not None else "test")
    forums = known.forums if known is not None else ()
    if forums and not is_there(folder, CORPUS):
        absent = [forum for forum in forums if not (folder / forum).is_dir()]
        if absent:
            raise DataError(
                f"{path}: {len(absent)} of {len(forums)} forums are missing: {', '.join(absent)}",
                "Its score is the mean of all of them. Get the whole zip again.",
            )
        parts = {forum: read_folder(folder / forum, f"{name}/{forum}", split, f"{path}/{forum}") for forum in forums}
    else:
        parts = {name: read_folder(folder, name, split, str(path))}
    for part in parts.values():
        _report(part, path)
    counts = _differences(parts, known) if known is not None else ()
    for difference in counts:
        note(f"{path}: {difference}.")
    return Dataset(name, path, parts, known, counts)


def _report(part: Collection, path: Path) -> None:
    facts = part.corpus.facts
    if part.unknown_judgements:
        named = ", ".join(map(repr, part.unknown_passages))
        more = "" if part.unknown_judgements <= len(part.unknown_passages) else ", ..."
        note(
            f"{path}: {part.unknown_judgements} of {part.judgements} judgements name passages missing from the corpus: "
            f"{named}{more}."
        )
    if without := part.queries_without_relevant:
        note(f"{path}: {without} of {len(part.queries)} queries have no relevant passage and score 0.")
    if facts.duplicate_ids:
        note(
            f"{path}: {facts.duplicate_ids} passages have an id that a later line has too, such as "
            f"{facts.first_duplicate}; the later one counts."
        )
    if facts.empty_passages:
        note(f"{path}: {facts.empty_passages} passages are empty.")


def _differences(parts: dict[str, Collection], known: KnownDataset) -> tuple[str, ...]:
    if any(part.split != known.score_split for part in parts.values()):
        return ()
    counted = {
        "passages": (sum(len(part.corpus) for part in parts.values()), known.passages),
        "queries": (sum(len(part.queries) for part in parts.values()), known.queries),
        "judgements": (sum(part.judgements for part in parts.values()), known.judgements),
    }
    return tuple(
        f"{found} {what}, but {known.name} has {published}"
        for what, (found, published) in counted.items()
        if published is not None and found != published
    )
