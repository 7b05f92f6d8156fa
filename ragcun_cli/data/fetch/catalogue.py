"""Map dataset names to the files to download, and describe their state before and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ragcun_cli.data.fetch.hub import PREFIX, find_on_hub
from ragcun_cli.data.fetch.receipts import DIGEST, read_receipt, receipt_place
from ragcun_cli.data.fetch.transfer import DownloadTask
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
    `verified`, `here`, `part of it`, or empty; bytes: download size; brings: download command, empty for an own one.
    """

    name: str
    kind: str
    task: str
    licence: str
    bytes: int | None
    state: str
    brings: str


def entries(root: Path) -> list[Entry]:
    """List every known source with its state in this data folder, and the user's own collections there."""
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
    return [*rows, *(Entry(name, "own", "your own", "unknown", None, "here", "") for name in own)]


def expand(names: Sequence[str]) -> list[str]:
    """Expand groups into their members, and list each name once.

    Raises:
        UsageError: if a name is unknown, or only available from its owners.
    """
    single = [*TRAINING, *(KNOWN[name].download_name for name in ALL)]
    chosen = []
    for name in (each for asked in names for each in DOWNLOADS.get(asked, (asked,))):
        if name not in single:
            raise UsageError(
                f"{name}: no such download; {did_you_mean(name, [*single, *DOWNLOADS])}",
                "`ragcun data list` shows what is available.",
            )
        known = KNOWN.get(name)
        if name not in TRAINING and known is not None and known.md5 is None:
            raise UsageError(
                f"{name}: only available from its owners under a licence: {known.obtain}",
                f"Then: ragcun data import {name} --from FOLDER",
            )
        chosen.append(name)
    return list(dict.fromkeys(chosen))


@dataclass(frozen=True)
class Plan:
    """Files to download, by dataset, and errors for datasets whose files could not be determined."""

    files: dict[str, list[DownloadTask]]
    failed: dict[str, RagcunError]

    def to_come(self, names: Sequence[str] | None = None) -> int:
        """Return the known size in bytes of missing files, for all datasets or for `names`."""
        chosen = self.files if names is None else names
        return sum(each.bytes or each.about for name in chosen for each in self.files[name] if not each.path.exists())


def plan_download(names: Sequence[str], root: Path, mirror: str | None) -> Plan:
    """Plan downloads for names from `expand`. If the Hub cannot be reached, the other datasets are unaffected.

    Raises:
        UsageError: if the mirror is not an address or folder.
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
        raise UsageError(f"--mirror {mirror}: no such folder", "Give a folder, or an http(s) URL.")


def described(name: str) -> KnownDataset | TrainingSet:
    """Return the registry's entry for a name from `expand`."""
    return TRAINING.get(name) or KNOWN[IN_DOMAIN if name == MSMARCO_CORPUS else name]


def _files_of(name: str, root: Path, mirror: str | None) -> list[DownloadTask]:
    known = described(name)
    if isinstance(known, TrainingSet):
        return [_of_training_set(name, file, root, mirror) for file in known.files]
    path = root / f"{known.name}.zip"
    address = _on_mirror(mirror, path.name) if mirror else known.url
    assert address is not None
    return [DownloadTask(path, address, known.zip_bytes, f"md5:{known.md5}")]


def _of_training_set(name: str, file: SourceFile, root: Path, mirror: str | None) -> DownloadTask:
    path = source_path(root, name, file)
    if mirror:
        address = _on_mirror(mirror, path.relative_to(root).as_posix())
        digest, published = (file.digest, True) if file.digest else _digest_on(mirror, receipt_place(root, path))
        return DownloadTask(path, address, None, digest, published, about=file.bytes)
    if not file.address.startswith(PREFIX):
        return DownloadTask(path, file.address, file.bytes, file.digest, headers=dict(file.headers))
    receipt = read_receipt(root, path)
    if receipt is not None and receipt["published"]:  # no need to ask the Hub again
        return DownloadTask(path, file.address, receipt["bytes"], file.digest or receipt["digest"])
    found = find_on_hub(file.address)
    headers = {"Authorization": f"Bearer {found.token}"} if found.token else {}
    digest = f"sha256:{found.sha256}" if found.sha256 else None
    if file.digest not in (None, digest):
        raise EnvironmentUnfit(
            f"{file.address}: the Hub lists {digest}, expected {file.digest}", "Use another server: --mirror URL|DIR."
        )
    return DownloadTask(path, found.address, found.bytes, digest, headers=headers)


def _on_mirror(mirror: str, below: str) -> str:
    """Return an address on a mirror, which is laid out like a data folder filled by ragcun."""
    return f"{mirror.rstrip('/')}/{below}" if "://" in mirror else str(expanded(mirror) / below)


def _digest_on(mirror: str, receipt: str) -> tuple[str | None, bool]:
    """Return the digest in a mirror's receipt of a file, or None, and whether it is the publisher's."""
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
