"""Find the file or folder that a data source's name refers to.

A source is a registry name, a path, or `embedded:docstrings`, the collection that ragcun makes itself. A registry
name is looked up only in the data folder, because a file of that name in the current folder could be anything.
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
    """Return the file of training triples, or the collection, that `data.train` refers to.

    asked: the start of an error message, such as the recipe's key.

    Raises:
        UsageError: if it is missing, with the command that gets it.
    """
    embedded = _embedded(source, folder)
    if embedded:
        return embedded.train
    if source in TRAINING:
        return _of_training_set(source, folder, TRAIN_FILE, asked)
    cure = "Name your training triples with --set data.train=FILE." if asked else "See: ragcun data list"
    return _known_or_path(source, folder, asked, cure)


def dev_collection(source: str, folder: Path, asked: str = "data.dev: ") -> Path:
    """Return the collection that `data.dev` refers to. asked: the start of an error message.

    Raises:
        UsageError: if it is missing, with the command that gets it.
    """
    embedded = _embedded(source, folder)
    if embedded:
        return embedded.dev
    if source in TRAINING:
        return _of_training_set(source, folder, DEV_FOLDER, asked)
    cure = "Name a folder or zip in BEIR's layout"
    cure += ", or use none: --set data.dev=null." if asked == "data.dev: " else "."
    return _known_or_path(source, folder, asked, cure)


def named_collection(source: str, folder: Path, asked: str = "") -> Path:
    """Return the collection that a command names. asked: the start of an error message.

    Raises:
        UsageError: if it is missing, with the command that gets it.
    """
    embedded = _embedded(source, folder)
    if embedded:
        return embedded.test
    return _known_or_path(source, folder, asked, "Give a folder or zip in BEIR's layout, or its name in --data-dir.")


def training_folder(folder: Path, name: str) -> Path:
    """Return the folder of a prepared training set of the registry."""
    return folder / "triples" / name


def collection_in(folder: Path, name: str) -> Path | None:
    """Return the folder or zip of this name in the data folder, or None."""
    place = folder / name
    if place.exists():
        return place
    beside = sorted(place.parent.glob(f"{glob.escape(place.name)}.*"))
    zips = [path for path in beside if path.name == f"{place.name}{path.suffix}"]
    return next((path for path in zips if is_zip(path)), None)


def source_path(folder: Path, name: str, file: SourceFile) -> Path:
    """Return the path of a training set's downloaded file."""
    return folder / "downloads" / name / file.name


def embedded_test(source: str, folder: Path) -> Path | None:
    """Return the test task of an embedded collection, or None for any other name."""
    embedded = _embedded(source, folder)
    return embedded.test if embedded else None


def available_collections(folder: Path) -> list[str]:
    """Return the names of the collections in the data folder, both folders and zips."""
    if not folder.is_dir():
        return []
    folders = [path.name for path in folder.iterdir() if any((path / name).is_file() for name in CORPUS_NAMES)]
    return sorted({*folders, *(path.stem for path in folder.iterdir() if is_zip(path) and _is_collection(path))})


def _is_collection(path: Path) -> bool:
    """Return whether a zip contains a collection, judged by its file list."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name.replace("\\", "/")).name in CORPUS_NAMES for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _of_training_set(name: str, folder: Path, part: str, asked: str) -> Path:
    path = training_folder(folder, name) / part
    if not path.exists():
        raise UsageError(f"{asked}{name} is not in {folder}/", f"Get it with: {TRAINING[name].how_to_get(str(folder))}")
    return path


def _known_or_path(source: str, folder: Path, asked: str, otherwise: str) -> Path:
    known = KNOWN.get(IN_DOMAIN if source == MSMARCO_CORPUS else source.lower())
    if known is not None:
        found = collection_in(folder, known.name)
        if found is not None:
            return found
        raise UsageError(f"{asked}{source} is not in {folder}/", f"Get it with: {known.how_to_get(str(folder))}")
    path = expanded(source)
    if not path.exists() and path.parent == Path():
        path = collection_in(folder, source) or path
    if not path.exists():
        guess = ""
        if path.parent == Path() and not path.suffix:
            names = dict.fromkeys([*available_collections(folder), *TRAINING, MSMARCO_CORPUS, *KNOWN])
            guess = f"; {did_you_mean(source, list(names))}"
        raise UsageError(f"{asked}{source}: no such file or folder{guess}", otherwise)
    return path


def _embedded(source: str, folder: Path) -> EmbeddedCollection | None:
    if not source.startswith(PREFIX):
        return None
    name = source[len(PREFIX) :]
    if name not in SIZES:
        raise UsageError(f"{source}: no such embedded collection; {did_you_mean(name, sorted(SIZES))}")
    return embedded_collection(name, folder)
