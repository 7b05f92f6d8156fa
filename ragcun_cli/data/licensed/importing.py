"""`ragcun data import`: import a licensed set from its owner's files into the data folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ragcun_cli.data.licensed.bioasq import read_bioasq
from ragcun_cli.data.licensed.robust04 import read_robust04
from ragcun_cli.data.licensed.signal1m import read_signal1m
from ragcun_cli.data.licensed.trec_news import read_trec_news
from ragcun_cli.data.licensed.writing import Imported, Parts, write_collection
from ragcun_cli.data.registry import KNOWN
from ragcun_cli.errors import UsageError
from ragcun_cli.recipe.problems import did_you_mean

READERS: dict[str, Callable[[Path], Parts]] = {
    "robust04": read_robust04,
    "trec-news": read_trec_news,
    "signal1m": read_signal1m,
    "bioasq": read_bioasq,
}


def import_set(name: str, delivered: Path, root: Path, overwrite: bool = False) -> Imported:
    """Write `<root>/<name>/` in BEIR's layout.

    Raises:
        UsageError: if it is not a licensed set, already exists, or one of the owner's files is missing.
        DataError: naming what is broken in the files; nothing is written then.
    """
    read = READERS.get(name)
    if read is None:
        public = KNOWN[name].how_to_get(str(root)) if name in KNOWN else "see `ragcun data list`."
        raise UsageError(f"{name}: not a licensed set; {did_you_mean(name, list(READERS))}", f"Not licensed: {public}")
    if not delivered.is_dir():
        raise UsageError(f"--from {delivered}: no such folder", "Name the folder with the owner's files.")
    folder = root / name
    if folder.exists() and not overwrite:
        raise UsageError(f"{folder}: already exists", "Give --overwrite to make it again.")
    return write_collection(KNOWN[name], read(delivered), folder)
