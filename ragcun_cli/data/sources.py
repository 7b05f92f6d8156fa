"""From the name of a data source to the file or folder it means.

A source is a path, or `embedded:docstrings`, the collection that ragcun makes itself.
"""

from __future__ import annotations

from pathlib import Path

from ragcun_cli.data.embedded import SIZES, EmbeddedCollection, embedded_collection
from ragcun_cli.errors import UsageError
from ragcun_cli.recipe.problems import did_you_mean

PREFIX = "embedded:"


def training_file(source: str, folder: Path) -> Path:
    """The file of training triples that `data.train` means."""
    embedded = _embedded(source, folder)
    return embedded.train if embedded else Path(source).expanduser()


def dev_collection(source: str, folder: Path) -> Path:
    """The collection that `data.dev` means."""
    embedded = _embedded(source, folder)
    return embedded.dev if embedded else Path(source).expanduser()


def embedded_test(source: str, folder: Path) -> Path | None:
    """The test task of an embedded collection, None for any other name."""
    embedded = _embedded(source, folder)
    return embedded.test if embedded else None


def available_collections(folder: Path) -> list[str]:
    """The names of the collections in the data folder."""
    if not folder.is_dir():
        return []
    folders = [path.name for path in folder.iterdir() if (path / "corpus.jsonl").is_file()]
    return sorted(folders + [path.stem for path in folder.glob("*.zip")])


def _embedded(source: str, folder: Path) -> EmbeddedCollection | None:
    if not source.startswith(PREFIX):
        return None
    name = source[len(PREFIX) :]
    if name not in SIZES:
        raise UsageError(f"{source}: there is no such embedded collection; {did_you_mean(name, sorted(SIZES))}")
    return embedded_collection(name, folder)
