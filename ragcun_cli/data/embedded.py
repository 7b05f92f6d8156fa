"""Make the embedded collection, training triples and dev and test tasks, from this machine's docstrings.

1. Read every pair from `docstrings.py` and drop repeated queries and passages.
2. Assign each module to train, dev or test by a hash of its name, so that no module is in two splits.
3. Keep a fixed number of pairs per split, again by hash, so that order and choice depend only on the text.
4. Give each training pair a hard negative: among some pairs of the same package, the passage with the most words
   in common with the query.
5. Write train.jsonl, and dev and test in BEIR's layout, with a fingerprint of the input and output.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragcun_cli import files
from ragcun_cli.data.collection_writer import passage_record, write_beir_layout
from ragcun_cli.data.docstrings import CodeBase, Pair, installed_code, pairs_of
from ragcun_cli.errors import DataError, UsageError

# Increased whenever the method changes, so that a collection made by an older ragcun is remade.
FORMAT = 1
FINGERPRINT = "fingerprint.json"
OWN_NAMES = {FINGERPRINT, "train.jsonl", "corpus.jsonl", "queries.jsonl", "dev.tsv", "test.tsv"}

DEV_SHARE, TEST_SHARE = 0.12, 0.30  # of the modules; the rest is for training
NEGATIVE_CANDIDATES = 64


@dataclass(frozen=True)
class SplitSizes:
    """Number of pairs in each split, and the share of modules read to find them."""

    train: int
    dev: int
    test: int
    share_of_modules: float

    def pairs(self) -> dict[str, int]:
        """Map each split to its number of pairs."""
        return {"train": self.train, "dev": self.dev, "test": self.test}


SIZES = {
    "docstrings": SplitSizes(train=384, dev=150, test=500, share_of_modules=1.0),
    "docstrings-quick": SplitSizes(train=48, dev=30, test=100, share_of_modules=0.2),
}


@dataclass(frozen=True)
class EmbeddedCollection:
    """Paths of the parts, and the recorded fingerprint."""

    train: Path
    dev: Path
    test: Path
    fingerprint: dict[str, Any]


def embedded_collection(name: str, folder: Path) -> EmbeddedCollection:
    """Make the collection in `folder/name`, unless it already exists and was made from the same files.

    Raises:
        DataError: if this machine has too little Python source (a stripped or frozen installation).
    """
    size, root = SIZES[name], folder / name
    code = installed_code()
    origin = {
        "format": FORMAT,
        "size": asdict(size),
        "code": [
            {"name": each.name, "version": each.version, "files": len(each.files), "sha256": each.sha256}
            for each in code
        ],
    }
    recorded = _recorded_fingerprint(root)
    if recorded is None or recorded["origin"] != origin:
        _require_ours(root)
        recorded = _make(name, size, code, origin, root)
    return EmbeddedCollection(root / "train.jsonl", root / f"{name}-dev", root / f"{name}-test", recorded)


def _require_ours(root: Path) -> None:
    """Check that the folder has no user files, because making the collection replaces it."""
    foreign = [path for path in root.rglob("*") if path.is_file() and path.name not in OWN_NAMES]
    if foreign or root.is_file():
        raise UsageError(
            f"{foreign[0] if foreign else root}: not part of this collection, whose folder would be replaced",
            "Move it, or choose another folder: --set data.folder=FOLDER (demo: --folder)",
        )


def _recorded_fingerprint(root: Path) -> dict[str, Any] | None:
    """Return the recorded fingerprint, if no file has changed since."""
    try:
        recorded: dict[str, Any] = json.loads((root / FINGERPRINT).read_text(encoding="utf-8"))
        whole = all(files.sha256_of_file(root / name) == digest for name, digest in recorded["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return recorded if whole else None


def _make(name: str, size: SplitSizes, code: Iterable[CodeBase], origin: dict[str, Any], root: Path) -> dict[str, Any]:
    def wanted_module(module: str) -> bool:
        return _share("read " + module) < size.share_of_modules

    splits = _split(_distinct(pair for each in code for pair in pairs_of(each, wanted_module)))
    for split, wanted in size.pairs().items():
        if len(splits[split]) < wanted:
            raise DataError(
                f"the {split} split of {name} needs {wanted} docstrings, but this machine has {len(splits[split])}",
                "Use a full Python installation with the standard library's .py files.",
            )
    chosen = {split: sorted(splits[split], key=_digest)[:wanted] for split, wanted in size.pairs().items()}
    with files.new_folder(root) as temporary:
        _write_triples(temporary / "train.jsonl", chosen["train"], splits["train"])
        for split in ("dev", "test"):
            _write_task(temporary / f"{name}-{split}", split, chosen[split])
        written = sorted(path for path in temporary.rglob("*") if path.is_file())
        fingerprint = {
            "origin": origin,
            "pairs": {split: len(pairs) for split, pairs in chosen.items()},
            "files": {path.relative_to(temporary).as_posix(): files.sha256_of_file(path) for path in written},
        }
        files.write_json(temporary / FINGERPRINT, fingerprint)
    return fingerprint


def _distinct(pairs: Iterable[Pair]) -> list[Pair]:
    """Keep each query and passage once, because a copied docstring in two splits would be a leak."""
    seen: set[str] = set()
    kept = []
    for pair in pairs:
        keys = {"q " + _plain(pair.query), "p " + _plain(pair.passage)}
        if not keys & seen:
            kept.append(pair)
        seen |= keys
    return kept


def _split(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    splits: dict[str, list[Pair]] = {"train": [], "dev": [], "test": []}
    for pair in pairs:
        share = _share(pair.module)
        split = "dev" if share < DEV_SHARE else "test" if share < DEV_SHARE + TEST_SHARE else "train"
        splits[split].append(pair)
    return splits


def _write_triples(path: Path, pairs: Sequence[Pair], pool: Sequence[Pair]) -> None:
    by_package: dict[str, list[Pair]] = {}
    for pair in pool:
        by_package.setdefault(pair.package, []).append(pair)
    lines = [
        {
            "query": pair.query,
            "positive": pair.passage,
            "negative": _hard_negative(pair, by_package[pair.package]),
        }
        for pair in pairs
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def _hard_negative(pair: Pair, package: Sequence[Pair]) -> str:
    start = int(_digest(pair)[:8], 16)
    some = [package[(start + step) % len(package)] for step in range(min(NEGATIVE_CANDIDATES, len(package)))]
    words = set(_plain(pair.query).split())
    others = [other for other in some if other.passage != pair.passage]
    if not others:
        raise DataError(f"{pair.module}: its package has no second docstring to use as a hard negative")
    return max(others, key=lambda other: (len(words & set(_plain(other.passage).split())), _digest(other))).passage


def _write_task(folder: Path, split: str, pairs: Sequence[Pair]) -> None:
    numbered = [(f"{number:05}", pair) for number, pair in enumerate(pairs)]
    write_beir_layout(
        folder,
        split,
        (passage_record(f"p{number}", pair.passage, metadata={"module": pair.module}) for number, pair in numbered),
        ((f"q{number}", pair.query) for number, pair in numbered),
        ((f"q{number}", f"p{number}", 1) for number, _ in numbered),
    )


def _share(text: str) -> float:
    """Return a number in [0, 1) that depends only on the text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def _digest(pair: Pair) -> str:
    return hashlib.sha256(f"{pair.module}\n{pair.query}\n{pair.passage}".encode()).hexdigest()


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))
