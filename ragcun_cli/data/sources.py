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


def evaluation_collection(source: str, folder: Path) -> Path:
    """The collection that `--datasets NAME` means: a path, `embedded:NAME`, or a name in the data folder.

    Raises:
        UsageError: if there is no such collection, with the nearest name and those that are there.
    """
    embedded = _embedded(source, folder)
    if embedded:
        return embedded.test
    for candidate in (Path(source), folder / source, folder / f"{source}.zip"):
        if candidate.is_dir() or (candidate.suffix == ".zip" and candidate.is_file()):
            return candidate
    here = available_collections(folder)
    nearest = did_you_mean(source, here) if here else f"there are none in {folder}/"
    raise UsageError(
        f"{source}: there is no such dataset; {nearest}",
        "Give a folder or zip in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/), or its name in --data-dir.",
    )


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
