"""`eval beir`: several models on several collections, each result on disk before the next begins."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ragcun_cli.console import StepProgress, note
from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.collection import Collection, read_collection
from ragcun_cli.data.sources import evaluation_collection
from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate.models import ScoredModel, open_model
from ragcun_cli.evaluate.results import RESERVED_NAMES, check_results_folder, claim_results_folder, write_results
from ragcun_cli.evaluate.rules import score_split
from ragcun_cli.evaluate.scoring import evaluate

MOST_OF_FREE_DISK = 0.25  # that the features of one collection may take unasked


@dataclass(frozen=True)
class ModelToScore:
    """A model as asked for; `shown_as` and `max_length` None for its own."""

    source: str
    shown_as: str | None = None
    max_length: int | None = None


def read_datasets(names: Sequence[str], data_folder: Path, split: str | None) -> list[Collection]:
    """All collections, before the first model is loaded: a wrong name costs seconds, not hours.

    Raises:
        UsageError, DataError: as `read_collection` says.
    """
    paths = [evaluation_collection(name, data_folder) for name in names]
    collections = [read_collection(path, split or score_split(path.stem)) for path in paths]
    for collection, path in zip(collections, paths, strict=True):
        if f"{collection.name}.json" in RESERVED_NAMES:
            raise UsageError(f"{path}: a dataset cannot be called {collection.name!r}", "Rename its folder.")
        if collection.unknown_judgements:
            judged = sum(map(len, collection.qrels.values()))
            note(f"{path}: {collection.unknown_judgements} of {judged} judgements name passages that are not there.")
    for first, second in itertools.combinations(range(len(collections)), 2):
        if collections[first].name == collections[second].name:
            raise UsageError(
                f"--datasets: {names[first]} and {names[second]} are both called {collections[first].name}",
                "Results are filed by the dataset's name; rename one, or evaluate one at a time.",
            )
    return collections


def evaluate_models(
    models: Sequence[ModelToScore], collections: Sequence[Collection], results: Path, overwrite: bool = False
) -> list[dict[str, Any]]:
    """Score each model on each collection and write what came out; returns the written entries.

    Raises:
        UsageError: if a results folder holds another model's results and may not be overwritten.
    """
    # Every model is opened once before the first is scored: a wrong one at the end of the line costs seconds.
    folders = []
    for asked in models:
        entry = open_model(asked.source, asked.max_length, asked.shown_as).entry
        folders.append(check_results_folder(results, entry, collections, overwrite))
    _require_distinct(models, folders)
    written = []
    for asked, folder in zip(models, folders, strict=True):
        model = open_model(asked.source, asked.max_length, asked.shown_as)
        claim_results_folder(folder, model.entry)
        for collection in collections:
            written.append(_evaluate_one(model, collection, folder))
    return written


def _encode_of(model: ScoredModel, collection: Collection) -> Callable[..., npt.NDArray[np.float32]]:
    """For a frozen backbone, through the features that training, other seeds or another evaluation left."""
    if not model.frozen:
        return model.encoder.encode
    from ragcun_cli.model.feature_store import FeatureStore

    store = FeatureStore(model.encoder, cache_folder())
    needed = store.bytes_missing([*collection.passages, *collection.queries])
    room = store.free_bytes()
    if needed > MOST_OF_FREE_DISK * room:
        note(
            f"{collection.name}: its features ({needed / 1e9:.1f} GB) are not kept, {room / 1e9:.1f} GB are free in "
            f"{cache_folder()}"
        )
        return model.encoder.encode
    return store.encode


def _require_distinct(models: Sequence[ModelToScore], folders: Sequence[Path]) -> None:
    for first, second in itertools.combinations(range(len(models)), 2):
        if folders[first] == folders[second]:
            raise UsageError(
                f"--model: {models[first].source} and {models[second].source} would both be {folders[first]}",
                "Evaluate them one at a time, each with its --name.",
            )


def _evaluate_one(model: ScoredModel, collection: Collection, folder: Path) -> dict[str, Any]:
    label = f"{model.entry['name']} on {collection.name}"
    total = len(collection.passages) + len(collection.queries)
    with StepProgress(label, total, "texts") as bar:
        encode = _encode_of(model, collection)
        evaluation = evaluate(lambda texts: encode(texts, bar.advance), collection)
    return write_results(folder, model.entry, collection, evaluation)
