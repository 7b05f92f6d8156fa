"""From the name of a data source to the file or folder it means.

A source is a name of the registry, a path, or `embedded:docstrings`, the collection that ragcun makes itself. A name of
the registry is looked for in the data folder only: a file of that name that happens to lie here may be anything.
"""

from __future__ import annotations

import glob
import zipfile
from pathlib import Path, PurePosixPath

from ragcun_cli.data.embedded import SIZES, EmbeddedCollection, embedded_collection
from ragcun_cli.data.naming import is_zip
from ragcun_cli.data.registry import IN_DOMAIN, KNOWN, MSMARCO_CORPUS, TRAINING, SourceFile
from ragcun_cli.errors import UsageError
from ragcun_cli.files import expanded
from ragcun_cli.recipe.problems import did_you_mean

PREFIX = "embedded:"
CORPUS_NAMES = ("corpus.jsonl", "corpus.jsonl.gz")
TRAIN_FILE, DEV_FOLDER = "train.parquet", "dev"


def training_file(source: str, folder: Path, asked: str = "data.train: ") -> Path:
    """The file of training triples, or the collection, that `data.train` means.

    asked: what an error begins with, such as the recipe's key.

    Raises:
        UsageError: if it is not there, with what brings it.
    """
    embedded = _embedded(source, folder)
    if embedded:
        return embedded.train
    if source in TRAINING:
        return _of_training_set(source, folder, TRAIN_FILE, asked)
    cure = "Name your training triples with --set data.train=FILE." if asked else "See: ragcun data list"
    return _known_or_path(source, folder, asked, cure)


def dev_collection(source: str, folder: Path, asked: str = "data.dev: ") -> Path:
    """The collection that `data.dev` means. asked: what an error begins with.

    Raises:
        UsageError: if it is not there, with what brings it.
    """
    embedded = _embedded(source, folder)
    if embedded:
        return embedded.dev
    if source in TRAINING:
        return _of_training_set(source, folder, DEV_FOLDER, asked)
    cure = "Name a folder or zip in BEIR's layout"
    cure += ", or do without: --set data.dev=null." if asked == "data.dev: " else "."
    return _known_or_path(source, folder, asked, cure)


def named_collection(source: str, folder: Path, asked: str = "") -> Path:
    """The collection that a command names; asked: what an error begins with.

    Raises:
        UsageError: if it is not there, with what brings it.
    """
    embedded = _embedded(source, folder)
    if embedded:
        return embedded.test
    return _known_or_path(source, folder, asked, "Give a folder or zip in BEIR's layout, or its name in --data-dir.")


def training_folder(folder: Path, name: str) -> Path:
    """Where a training set of the registry lies once it is prepared."""
    return folder / "triples" / name


def collection_in(folder: Path, name: str) -> Path | None:
    """The folder or zip of this name in the data folder; None if there is neither."""
    place = folder / name
    if place.exists():
        return place
    beside = sorted(place.parent.glob(f"{glob.escape(place.name)}.*"))
    zips = [path for path in beside if path.name == f"{place.name}{path.suffix}"]
    return next((path for path in zips if is_zip(path)), None)


def source_path(folder: Path, name: str, file: SourceFile) -> Path:
    """Where a training set's file lies as it came."""
    return folder / "downloads" / name / file.name


def embedded_test(source: str, folder: Path) -> Path | None:
    """The test task of an embedded collection, None for any other name."""
    embedded = _embedded(source, folder)
    return embedded.test if embedded else None


def available_collections(folder: Path) -> list[str]:
    """The names of the collections in the data folder, folders and zips."""
    if not folder.is_dir():
        return []
    folders = [path.name for path in folder.iterdir() if any((path / name).is_file() for name in CORPUS_NAMES)]
    return sorted({*folders, *(path.stem for path in folder.iterdir() if is_zip(path) and _is_collection(path))})


def _is_collection(path: Path) -> bool:
    """Of a zip, by the list of what is in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name.replace("\\", "/")).name in CORPUS_NAMES for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _of_training_set(name: str, folder: Path, part: str, asked: str) -> Path:
    path = training_folder(folder, name) / part
    if not path.exists():
        raise UsageError(
            f"{asked}{name} is not in {folder}/", f"It comes with: {TRAINING[name].how_to_get(str(folder))}"
        )
    return path


def _known_or_path(source: str, folder: Path, asked: str, otherwise: str) -> Path:
    known = KNOWN.get(IN_DOMAIN if source == MSMARCO_CORPUS else source.lower())
    if known is not None:
        found = collection_in(folder, known.name)
        if found is not None:
            return found
        raise UsageError(f"{asked}{source} is not in {folder}/", f"It comes with: {known.how_to_get(str(folder))}")
    path = expanded(source)
    if not path.exists() and path.parent == Path():
        path = collection_in(folder, source) or path
    if not path.exists():
        guess = ""
        if path.parent == Path() and not path.suffix:
            names = dict.fromkeys([*available_collections(folder), *TRAINING, MSMARCO_CORPUS, *KNOWN])
            guess = f"; {did_you_mean(source, list(names))}"
        raise UsageError(f"{asked}{source}: there is no such file or folder{guess}", otherwise)
    return path


def _embedded(source: str, folder: Path) -> EmbeddedCollection | None:
    if not source.startswith(PREFIX):
        return None
    name = source[len(PREFIX) :]
    if name not in SIZES:
        raise UsageError(f"{source}: there is no such embedded collection; {did_you_mean(name, sorted(SIZES))}")
    return embedded_collection(name, folder)
