"""From the names of datasets to the files that have to come, and to what is said of them before and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ragcun_cli.data.fetch.hub import PREFIX, find_on_hub
from ragcun_cli.data.fetch.receipts import DIGEST, read_receipt, receipt_place
from ragcun_cli.data.fetch.transfer import Wanted
from ragcun_cli.data.registry import (
    ALL,
    DOWNLOADS,
    IN_DOMAIN,
    KNOWN,
    MSMARCO_CORPUS,
    TRAINING,
    KnownDataset,
    SourceFile,
    TrainingSet,
)
from ragcun_cli.data.sources import available_collections, source_path, training_folder
from ragcun_cli.errors import EnvironmentUnfit, RagcunError, UsageError
from ragcun_cli.files import expanded
from ragcun_cli.manifest import MANIFEST, problem_with
from ragcun_cli.recipe.problems import did_you_mean

SECONDS_FOR_A_RECEIPT = 20
FILES = ("corpus.jsonl", "queries.jsonl")


@dataclass(frozen=True)
class Entry:
    """One row of `ragcun data list`. kind: training, evaluation, or own for a collection of the user's; state:
    `verified`, `here`, `part of it`, or empty; bytes: of the download; brings: the command, empty for an own one.
    """

    name: str
    kind: str
    task: str
    licence: str
    bytes: int | None
    state: str
    brings: str


def entries(root: Path) -> list[Entry]:
    """Every known source, how it stands in this data folder, and the other collections that lie there."""
    rows = [
        Entry(
            each.name,
            "training",
            each.task,
            each.licence,
            each.bytes,
            _training_state(root, each.name),
            _brings(each.name),
        )
        for each in TRAINING.values()
    ]
    for name in ALL:
        known = KNOWN[name]
        brings = _brings(known.download_name) if known.md5 else f"ragcun data import {name} --from FOLDER"
        row = known.download_name if known.md5 else name
        rows.append(Entry(row, "evaluation", known.task, known.licence, known.zip_bytes, _state(root, known), brings))
    own = [name for name in available_collections(root) if name not in KNOWN]
    return [*rows, *(Entry(name, "own", "your own", "yours to know", None, "here", "") for name in own)]


def expand(names: Sequence[str]) -> list[str]:
    """Groups as their members, each name once.

    Raises:
        UsageError: if a name is not known, or is only available from its owners.
    """
    single = [*TRAINING, *(KNOWN[name].download_name for name in ALL)]
    chosen = []
    for name in (each for asked in names for each in DOWNLOADS.get(asked, (asked,))):
        if name not in single:
            raise UsageError(
                f"{name}: there is nothing of this name to download; {did_you_mean(name, [*single, *DOWNLOADS])}",
                "`ragcun data list` shows what there is.",
            )
        known = KNOWN.get(name)
        if name not in TRAINING and known is not None and known.md5 is None:
            raise UsageError(
                f"{name}: its owners give it out under a licence: {known.obtain}",
                f"Then: ragcun data import {name} --from FOLDER",
            )
        chosen.append(name)
    return list(dict.fromkeys(chosen))


@dataclass(frozen=True)
class Plan:
    """What has to come, by dataset; and why it is not known what some of them need."""

    files: dict[str, list[Wanted]]
    failed: dict[str, RagcunError]

    def to_come(self, names: Sequence[str] | None = None) -> int:
        """Bytes of the files that are not here, of all datasets or these, as far as they are known before."""
        chosen = self.files if names is None else names
        return sum(each.bytes or each.about for name in chosen for each in self.files[name] if not each.path.exists())


def plan_download(names: Sequence[str], root: Path, mirror: str | None) -> Plan:
    """What has to come for names that `expand` gave. A hub that cannot be asked stops none of the others.

    Raises:
        UsageError: if the mirror is no address.
    """
    if mirror is not None:
        _check_mirror(mirror)
    plan = Plan({}, {})
    for name in names:
        try:
            plan.files[name] = _files_of(name, root, mirror)
        except RagcunError as error:
            plan.failed[name] = error
    return plan


def _check_mirror(mirror: str) -> None:
    if "://" in mirror:
        parts = urlsplit(mirror)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UsageError(f"--mirror {mirror}: not an http(s) address", "Give a folder, or an http(s) URL.")
    elif not expanded(mirror).is_dir():
        raise UsageError(f"--mirror {mirror}: there is no such folder", "Give a folder, or an http(s) URL.")


def described(name: str) -> KnownDataset | TrainingSet:
    """The registry's row of a name that `expand` gave."""
    return TRAINING.get(name) or KNOWN[IN_DOMAIN if name == MSMARCO_CORPUS else name]


def _files_of(name: str, root: Path, mirror: str | None) -> list[Wanted]:
    known = described(name)
    if isinstance(known, TrainingSet):
        return [_of_training_set(name, file, root, mirror) for file in known.files]
    path = root / f"{known.name}.zip"
    address = _on_mirror(mirror, path.name) if mirror else known.url
    assert address is not None
    return [Wanted(path, address, known.zip_bytes, f"md5:{known.md5}")]


def _of_training_set(name: str, file: SourceFile, root: Path, mirror: str | None) -> Wanted:
    path = source_path(root, name, file)
    if mirror:
        address = _on_mirror(mirror, path.relative_to(root).as_posix())
        digest, published = (file.digest, True) if file.digest else _digest_on(mirror, receipt_place(root, path))
        return Wanted(path, address, None, digest, published, about=file.bytes)
    if not file.address.startswith(PREFIX):
        return Wanted(path, file.address, file.bytes, file.digest, headers=dict(file.headers))
    receipt = read_receipt(root, path)
    if receipt is not None and receipt["published"]:  # the hub need not be asked again
        return Wanted(path, file.address, receipt["bytes"], file.digest or receipt["digest"])
    found = find_on_hub(file.address)
    headers = {"Authorization": f"Bearer {found.token}"} if found.token else {}
    digest = f"sha256:{found.sha256}" if found.sha256 else None
    if file.digest not in (None, digest):
        raise EnvironmentUnfit(
            f"{file.address}: the hub lists {digest}, known is {file.digest}", "Use another server: --mirror URL|DIR."
        )
    return Wanted(path, found.address, found.bytes, digest, headers=headers)


def _on_mirror(mirror: str, below: str) -> str:
    """A mirror is laid out as a data folder is: one that ragcun filled on another machine will do."""
    return f"{mirror.rstrip('/')}/{below}" if "://" in mirror else str(expanded(mirror) / below)


def _digest_on(mirror: str, receipt: str) -> tuple[str | None, bool]:
    """The digest in a mirror's own receipt of a file, and whether it is the publisher's; None if it has none."""
    import requests

    address = _on_mirror(mirror, receipt)
    try:
        if "://" in mirror:
            response = requests.get(address, timeout=SECONDS_FOR_A_RECEIPT)
            response.raise_for_status()
            content = response.json()
        else:
            content = json.loads(Path(address).read_text(encoding="utf-8"))
        digest, published = content["digest"], content["published"]
        return (digest, published is True) if DIGEST.match(digest) else (None, False)
    except (OSError, ValueError, KeyError, TypeError):  # requests' errors are OSErrors
        return None, False


def _brings(name: str) -> str:
    return f"ragcun data download {name}"


def _state(root: Path, known: KnownDataset) -> str:
    path, folder = root / f"{known.name}.zip", root / known.name
    if path.is_file():
        receipt = read_receipt(root, path)
        return "verified" if receipt is not None and receipt["digest"] == f"md5:{known.md5}" else "here"
    forums = [folder / forum for forum in known.forums] or [folder]
    if all((part / needed).is_file() for part in forums for needed in FILES):
        return "here"
    return _part_of(path)


def _training_state(root: Path, name: str) -> str:
    sources = [source_path(root, name, file) for file in TRAINING[name].files]
    receipts = [read_receipt(root, path) for path in sources]
    folder = training_folder(root, name)
    if (folder / MANIFEST).is_file() and problem_with(folder) is None:
        return "verified" if all(each is not None and each["published"] for each in receipts) else "here"
    if any(path.is_file() for path in sources):
        return "part of it"
    return next((state for path in sources if (state := _part_of(path))), "")


def _part_of(path: Path) -> str:
    return "part of it" if path.with_name(path.name + ".part").is_file() else ""
