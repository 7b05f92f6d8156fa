"""One opened model, with what embeds, searches and scores with it: here, or in a process for each device."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ragcun_cli.console import note
from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.collection import Collection
from ragcun_cli.data.triples.prepared import open_triples
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.evaluate.embedding import BlockEncoder, Embedded, Embedder
from ragcun_cli.evaluate.geometry import Geometry
from ragcun_cli.evaluate.models import ScoredModel, open_model
from ragcun_cli.evaluate.precision import Precision
from ragcun_cli.evaluate.scoring import Evaluation, Scheme, Search, evaluate, measure_only
from ragcun_cli.evaluate.search import DEFAULT_MEMORY, Ranking, merge, search
from ragcun_cli.evaluate.vectors import PassageVectors
from ragcun_cli.evaluate.workers import Workers

TRAINING_TEXTS = 100_000  # at most, passages of a training file that a transform is fitted on


@dataclass(frozen=True)
class ModelToScore:
    """A model as requested; `shown_as` and `max_length` are None for its own."""

    source: str
    shown_as: str | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class EvaluationSettings:
    """How all models are scored.

    schemes: each gives a row per model. memory: bytes for the search. cache_limit: bytes of kept embeddings, None for
    as much as the disk has. processes: None for one per GPU. precision: of the passes through the network.
    """

    schemes: tuple[Scheme, ...] = (Scheme(),)
    memory: int = DEFAULT_MEMORY
    cache_limit: int | None = None
    processes: int | None = None
    precision: str = "float32"
    robustness: bool = True


class ModelEvaluator:
    """One opened model with what it takes to embed, search and score."""

    def __init__(self, model: ScoredModel, settings: EvaluationSettings, workers: Workers | None) -> None:
        self.entry = model.entry
        self._settings = settings
        self._workers = workers
        self._embedder = Embedder(model, cache_folder(), workers, settings.cache_limit)
        self._device = str(model.encoder.device)
        self._fits: dict[str, PassageVectors] = {}  # what transforms are fitted on, by file
        self.on_share: Callable[[float], None] | None = None  # what a search in this process calls as it proceeds

    def embed(self, part: Collection, on_done: Callable[[int], None]) -> Embedded:
        """All passages and queries; `on_done(count)` is called as texts are there."""
        return self._embedder.embed(part, on_done)

    def score(self, scheme: Scheme, part: Collection, embedded: Embedded) -> Evaluation:
        fit, find = self._fit(scheme, embedded), self.search()
        return evaluate(embedded, part, scheme, fit, find, self._settings.robustness, cache_folder())

    def measure(self, scheme: Scheme, part: Collection, embedded: Embedded) -> Geometry | None:
        return measure_only(embedded, part, scheme, self._fit(scheme, embedded), self.search(), cache_folder())

    def search_entry(self) -> dict[str, Any]:
        return {
            "precision": Precision.float32().name,
            "memory": self._settings.memory,
            "processes": len(self._workers.devices) if self._workers is not None else 1,
        }

    def fit(self, schemes: Sequence[Scheme]) -> None:
        """Embed the training files that transforms are fitted on."""
        names = sorted({scheme.fit_on for scheme in schemes if fits_on_file(scheme)})
        self._fits = {name: self._embedder.embed_texts(_training_passages(Path(name))) for name in names}

    def release(self) -> None:
        self._embedder.release()

    def _fit(self, scheme: Scheme, embedded: Embedded) -> PassageVectors | None:
        """Return what a transform is fitted on; None for the corpus itself."""
        fit = self._fits[scheme.fit_on] if fits_on_file(scheme) else None
        texts, dimensions = len(embedded.passages if fit is None else fit), embedded.passages.dimensions
        if scheme.transform.kind == "whiten" and texts <= dimensions:
            note(f"{scheme.transform.name} is fitted on {texts} passages of {dimensions} dimensions: far too few.")
        return fit

    def search(self) -> Search:
        """Return a function (queries, passages, k) -> ranking, wherever this bench searches."""
        memory = self._settings.memory
        if self._workers is None:
            return functools.partial(search, memory=memory, device=self._device, on_share=self.on_share)
        return functools.partial(_search_elsewhere, self._workers, memory)


@contextlib.contextmanager
def open_evaluator(asked: ModelToScore, settings: EvaluationSettings) -> Iterator[ModelEvaluator]:
    """Open a model, and as many processes as the settings say."""
    model = open_asked(asked, settings.precision)
    devices = devices_for(settings.processes)
    if len(devices) < 2:
        yield ModelEvaluator(model, settings, None)
        return
    with Workers(devices, _block_encoder, (asked, settings.precision, cache_folder())) as workers:
        yield ModelEvaluator(model, settings, workers)


def open_asked(asked: ModelToScore, precision: str, device: str | None = None) -> ScoredModel:
    """Open a model as it was asked for. device: None for the best one."""
    return open_model(asked.source, asked.max_length, asked.shown_as, precision, device)


def _block_encoder(asked: ModelToScore, precision: str, cache: Path, device: str) -> BlockEncoder:
    return BlockEncoder(open_asked(asked, precision, device), cache)


def devices_for(processes: int | None) -> list[str]:
    """Return the device of each process; one process on each GPU for None.

    Raises:
        EnvironmentUnfit: if there are fewer devices than processes.
    """
    gpus = torch.cuda.device_count()
    if processes is None:
        processes = max(gpus, 1)
    if gpus and processes > gpus:
        raise EnvironmentUnfit(f"--processes {processes}: there are {gpus} GPUs here", "Each process takes one.")
    if not gpus and processes > (os.cpu_count() or 1):
        raise EnvironmentUnfit(f"--processes {processes}: there are {os.cpu_count()} CPU cores here", "Use fewer.")
    return [f"cuda:{number}" if gpus else "cpu" for number in range(processes)]


def _search_elsewhere(workers: Workers, memory: int, queries: Any, passages: PassageVectors, k: int) -> Ranking:
    """Let each process search its part of the passages; the k nearest of all are among theirs."""
    parts = len(workers.devices)
    cuts = [len(passages) * number // parts for number in range(parts + 1)]
    some = [passages.part(start, stop) for start, stop in itertools.pairwise(cuts) if stop > start]
    found = workers.each(_search_part, [(queries, part, k, memory // parts) for part in some])
    return merge(queries, passages, k, found)


def _search_part(prepared: BlockEncoder, queries: Any, passages: PassageVectors, k: int, memory: int) -> Ranking:
    return search(queries, passages, k, memory=memory, device=prepared.device)


def fits_on_file(scheme: Scheme) -> bool:
    """Whether the scheme's transform is fitted on a training file, and not on each corpus."""
    return scheme.fit_on != "corpus" and scheme.transform.needs_fit


def _training_passages(path: Path) -> list[str]:
    """Return distinct positives and negatives, spread evenly over the whole file."""
    table, _ = open_triples(path)
    passages = table.passages()
    some = np.linspace(0, len(passages) - 1, min(len(passages), TRAINING_TEXTS)).astype(np.int64)
    return [table.texts[number] for number in passages[some].tolist()]
