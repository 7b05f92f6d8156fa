"""A few real steps of a recipe on a sample of its data: does it train here, how fast, and with how much memory?

1. The sample's longest rows form a batch longer than any in the run: how much of it fits into memory?
2. One ordinary batch is trained on over and over: is its loss finite, and does it fall?
3. The same steps, and some texts of the data, are timed.

Nothing is left behind: neither a run folder nor what it puts into its own cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import torch

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.batches import BatchSequence, TripleBatch
from ragcun_cli.data.cache import cache_folder, scratch_folder
from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.data.triples.table import TripleTable, evenly
from ragcun_cli.recipe.estimates import RUNTIME_BYTES
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.recipe.trial_figures import Trial
from ragcun_cli.runs.folder import RunFolder
from ragcun_cli.train.hardware import tensor_float32
from ragcun_cli.train.memory import SMALLEST_CHUNK, ChunkSize, first_tokens, kept_bytes, probe_chunk
from ragcun_cli.train.plan import make_plan
from ragcun_cli.train.precision import Hardware
from ragcun_cli.train.prepare import ArmData, prepare
from ragcun_cli.train.speed import peak_memory
from ragcun_cli.train.step import OVERFLOWS_ALLOWED, optimiser_step, split_views
from ragcun_cli.train.training import Training

Result = TypeVar("Result")

ROWS_LOOKED_AT = 20_000  # searched for the longest, by characters
ROWS_COUNTED = 512  # whose tokens are counted
TEXTS_ENCODED = 512  # at most; as many are timed as SECONDS_OF_ENCODING allows
STEPS = 3
SECONDS_OF_A_STEP = 4.0  # if a step takes longer, only part of the batch is trained on
SECONDS_OF_ENCODING = 3.0
SMALLEST_BATCH = 4  # triples; below this some isotropy terms are undefined
# The time and memory that every training takes before it begins: this module imports what a training does.
SECONDS_OF_IMPORTS = time.time() - psutil.Process().create_time()
BYTES_OF_IMPORTS = psutil.Process().memory_info().rss


class OneBatch(BatchSequence):
    """The same batch, whatever its number."""

    def __init__(self, batch: TripleBatch) -> None:
        self._one = batch

    def batch(self, number: int) -> TripleBatch:
        return self._one


def try_recipe(recipe: Recipe, data: ArmData, hardware: Hardware, cache: Path | None = None) -> Trial:
    """Build everything as a training does, and train a few steps; the recipe's own run folder is not touched.

    cache: the caller's folder for what is kept; by default a scratch folder in ragcun's own cache.

    Raises:
        RagcunError: what a training would raise.
    """
    if cache is not None:
        return _try_in(cache, recipe, data, hardware)
    with scratch_folder(cache_folder()) as scratch:
        return _try_in(scratch, recipe, data, hardware)


def _try_in(cache: Path, recipe: Recipe, data: ArmData, hardware: Hardware) -> Trial:
    began = time.time()
    training = _prepare(cache, recipe, data, hardware, evenly(len(data.table), recipe.batch_size))
    start_seconds = SECONDS_OF_IMPORTS + time.time() - began
    counted = _tokens_per_row(training, data.table, evenly(len(data.table), ROWS_COUNTED))
    longest, kept = _probe_memory(training, data.table)
    batch, losses, seconds = _train_repeatedly(training)
    tokens = int(training.text_lengths[batch.texts()].sum())
    dev = data.dev.texts() if data.dev is not None else []
    encoding, tokenised, dev_tokens = _encoding_rates(
        training, dev or [data.table.texts[number] for number in counted.texts]
    )
    return Trial(
        triples=len(data.table),
        tokens_per_triple=counted.per_row,
        text_tokens=counted.per_text * len(data.table.texts),
        dev_texts=len(dev),
        dev_tokens=dev_tokens * len(dev),
        parameters=sum(each.numel() for each in training.encoder.parameters()),
        trainable=sum(each.numel() for each in training.trainable()),
        losses=losses,
        batch=len(batch.queries),
        seconds=seconds,
        training_tokens=None if recipe.freeze_base else tokens / seconds,
        encoding_tokens=encoding,
        tokenised=tokenised,
        longest_tokens=longest,
        chunk=training.progress.chunk_tokens,
        chunk_explained=training.plan.chunk,
        kept_bytes=kept,
        peak_bytes=peak_memory(),
        imported_bytes=BYTES_OF_IMPORTS if hardware.device == "cpu" else round(RUNTIME_BYTES),
        start_seconds=start_seconds,
        steps=STEPS,
        on_gpu=hardware.device != "cpu",
        device=hardware.name,
    )


def part_of(table: TripleTable, rows: Numbers) -> TripleTable:
    """Return these rows as a separate table."""
    negatives, owners = table.negatives_of(rows)
    used, numbers = np.unique(
        np.concatenate([table.queries[rows], table.positives[rows], negatives]), return_inverse=True
    )
    texts = [table.texts[number] for number in used.tolist()]
    queries, positives, of_negatives = np.split(numbers.reshape(-1), [len(rows), 2 * len(rows)])
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    ends = np.cumsum(np.bincount(owners, minlength=len(rows)))
    return TripleTable(texts, digest, queries, positives, of_negatives, ends)


def _prepare(cache: Path, recipe: Recipe, data: ArmData, hardware: Hardware, rows: Numbers) -> Training:
    """Prepare a run over one batch, with enough epochs for the steps needed."""
    few = recipe.model_copy(
        update={
            "epochs": 10 * STEPS,  # the schedule's end is far away
            "max_steps": None,
            "warmup_steps": 0,
            "gradient_accumulation_steps": 1,
            "trackers": [],
            "compile": False,
        }
    )
    part = ArmData(part_of(data.table, rows), data.train_sha256, None)
    plan = make_plan(few, part.table, hardware)
    training = prepare(few, RunFolder.of(few), part, plan, hardware, cache=cache)
    training.batches = OneBatch(training.batches.batch(0))
    return training


@dataclass(frozen=True)
class _Counted:
    per_row: float
    per_text: float
    texts: list[int]


def _tokens_per_row(training: Training, table: TripleTable, rows: Numbers) -> _Counted:
    """Return the mean tokens per triple and per text, and the rows' passages by number."""
    negatives, _ = table.negatives_of(rows)
    numbers = np.concatenate([table.queries[rows], table.positives[rows], negatives]).tolist()
    lengths = training.encoder.tokenize([table.texts[number] for number in numbers]).lengths
    passages = list(numbers[len(rows) :])
    return _Counted(float(lengths.sum()) / len(rows), float(lengths.mean()), passages)


def _probe_memory(training: Training, table: TripleTable) -> tuple[int, float]:
    """Set the chunk for a batch of the longest rows; return its tokens, and the bytes a token keeps for backward."""
    recipe = training.recipe
    rows = evenly(len(table), ROWS_LOOKED_AT)
    negatives, owners = table.negatives_of(rows)
    characters = np.array(
        [
            len(table.texts[a]) + len(table.texts[b])
            for a, b in zip(table.queries[rows].tolist(), table.positives[rows].tolist(), strict=True)
        ]
    )
    of_negatives = np.array([len(table.texts[number]) for number in negatives.tolist()], dtype=np.int64)
    np.add.at(characters, owners, of_negatives)
    chosen = np.sort(rows[np.argsort(-characters, kind="stable")[: recipe.batch_size]])
    negatives, _ = table.negatives_of(chosen)
    numbers = np.concatenate([table.queries[chosen], table.positives[chosen], negatives]).tolist()
    longest = training.encoder.tokenize([table.texts[number] for number in numbers])
    tokens = int(longest.lengths.sum())
    if recipe.freeze_base:
        return tokens, 0.0
    asked = recipe.chunk_tokens
    size = ChunkSize(asked, "chunk_tokens from the recipe") if asked else probe_chunk(training, longest)
    training.progress.chunk_tokens = size.tokens
    training.plan = dataclasses.replace(training.plan, chunk=size.explained)
    few = first_tokens(longest, 8 * SMALLEST_CHUNK)
    kept = kept_bytes(training.encoder, few) / int(few.lengths.sum())
    training.optimiser.zero_grad()
    return tokens, kept


def _train_repeatedly(training: Training) -> tuple[TripleBatch, tuple[float, float], float]:
    """Return the batch, its loss before and after the steps, and the median seconds per step."""
    _, first = _timed(partial(optimiser_step, training))  # also absorbs one-time costs
    batch = training.batches.batch(0)
    if first > SECONDS_OF_A_STEP:
        size = max(SMALLEST_BATCH, int(len(batch.queries) * SECONDS_OF_A_STEP / first))
        batch = smaller_batch(batch, min(size, len(batch.queries)))
        training.batches = OneBatch(batch)
    before = _loss(training, batch)
    seconds: list[float] = []
    updates = 0
    # fp16's loss scale begins too high: steps that overflow change nothing until it has come down.
    while updates < STEPS and len(seconds) < STEPS + OVERFLOWS_ALLOWED:
        training.progress.step = min(training.progress.step + 1, training.plan.total_steps - 1)
        (record, _), taken = _timed(partial(optimiser_step, training))
        seconds.append(taken)
        updates += record["gradient_norm"] is not None
    return batch, (before, _loss(training, batch)), statistics.median(seconds)


def smaller_batch(batch: TripleBatch, size: int) -> TripleBatch:
    """Return the first `size` triples of a batch."""
    among = batch.negative_owners < size
    return TripleBatch(
        batch.rows[:size],
        batch.queries[:size],
        batch.positives[:size],
        batch.negatives[among],
        batch.negative_owners[among],
    )


@torch.no_grad()
def _loss(training: Training, batch: TripleBatch) -> float:
    """Return the loss, without dropout and with the same random directions each time."""
    training.encoder.eval()
    inputs = training.make_input(batch.texts())
    with tensor_float32(training.hardware):
        if isinstance(inputs, TokenBatch):
            parts = training.chunks(inputs.lengths)
            embeddings = torch.cat([training.model(inputs.select(part)) for part in parts])
            embeddings = embeddings[torch.from_numpy(np.argsort(np.concatenate(parts))).to(embeddings.device)]
        else:
            embeddings = training.model(inputs)
    return float(training.objective(split_views(embeddings, batch), 0).loss)


def _encoding_rates(training: Training, texts: Sequence[str]) -> tuple[float, float, float]:
    """Return the tokens encoded and tokenised per second, and the mean tokens per text."""
    some = [texts[place] for place in evenly(len(texts), TEXTS_ENCODED).tolist()]
    started = time.perf_counter()
    tokens = training.encoder.tokenize(some)
    tokenised = int(tokens.lengths.sum()) / (time.perf_counter() - started)
    done, seconds, size = 0, 0.0, 16
    training.encoder.features_of_tokens(tokens.select(np.arange(min(2, len(tokens)))))  # one-time costs
    order = np.random.Generator(np.random.Philox(0)).permutation(len(tokens))
    encoded = 0
    while encoded < len(order) and seconds < SECONDS_OF_ENCODING:
        part = tokens.select(order[encoded : encoded + size])
        seconds += _timed(partial(training.encoder.features_of_tokens, part))[1]
        done += int(part.lengths.sum())
        encoded += size
        size *= 2
    return done / seconds, tokenised, float(tokens.lengths.mean())


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Return the result of `work` and the seconds it took, including pending GPU work."""
    _synchronise()
    started = time.perf_counter()
    result = work()
    _synchronise()
    return result, time.perf_counter() - started


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
