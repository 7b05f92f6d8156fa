"""One optimiser step: losses, gradients, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from ragcun_cli import files
from ragcun_cli.console import note
from ragcun_cli.data.batches import TripleBatch
from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.errors import RagcunError
from ragcun_cli.losses.objective import ObjectiveTerms, TripleEmbeddings
from ragcun_cli.train.chunks import backward_at_once, backward_in_chunks
from ragcun_cli.train.hardware import tensor_float32
from ragcun_cli.train.memory import halved, is_out_of_memory, release_memory
from ragcun_cli.train.optimiser import set_rates
from ragcun_cli.train.random_state import random_state, set_random_state
from ragcun_cli.train.run_folder import DIVERGED
from ragcun_cli.train.schedule import rate_factor
from ragcun_cli.train.training import Training

DIVERGED_HINT = (
    "Lower the learning rates or the lambdas, or set mixed_precision: no, and train into another folder. What was "
    "saved before is kept; diverged.json in the run's folder has the rows."
)
SHOWN_ROWS = 16
OVERFLOWS_ALLOWED = 20  # fp16 steps in a row that are skipped; lowering the loss scale mends it within a few


class Losses:
    """What the losses of one optimiser step were, and the last one's embeddings (n, D) of queries and positives."""

    def __init__(self) -> None:
        self.terms: list[ObjectiveTerms] = []
        self.tokens = 0
        self.queries = torch.empty(0)
        self.positives = torch.empty(0)


def optimiser_step(training: Training) -> tuple[dict[str, Any], Losses]:
    """Train one step; returns what metrics.jsonl says of it, but for what only logged steps measure.

    Where memory runs out, the step begins again with half the tokens in a pass; the batch stays as it is.

    Raises:
        RagcunError: if loss or gradient are no longer finite.
    """
    recipe, step = training.recipe, training.progress.step
    rates = set_rates(training.optimiser, rate_factor(step, training.plan.warmup_steps, training.plan.total_steps))
    training.encoder.train()
    if recipe.freeze_base:
        training.encoder.network.eval()
    with tensor_float32(training.hardware):
        losses = _gradients_that_fit(training)
    norm = float(training.accelerator.clip_grad_norm_(training.trainable(), recipe.max_gradient_norm))
    temperature = training.objective.temperature.item()  # the one that the losses above used
    _require_finite_gradient(training, norm)
    training.optimiser.step()
    training.optimiser.zero_grad()
    training.objective.keep_temperature_in_range()
    record = {
        "step": step + 1,
        "epoch": round((step + 1) / training.plan.steps_per_epoch, 4),
        **_mean_terms(losses.terms),
        "temperature": temperature,
        **{f"learning_rate_{part}": rate for part, rate in rates.items()},
        # fp16's loss scaling overflows now and then and skips the step; JSON has no infinity.
        "gradient_norm": norm if math.isfinite(norm) else None,
    }
    return record, losses


def _gradients_that_fit(training: Training) -> Losses:
    while True:
        before = random_state()
        try:
            return _gradients(training)
        except RuntimeError as error:
            if not is_out_of_memory(error) or training.recipe.freeze_base:
                raise
        # Outside the except block: while the error lives, so do the tensors of the step that failed.
        training.optimiser.zero_grad()
        release_memory()
        set_random_state(before)
        training.progress.chunk_tokens = halved(training.progress.chunk_tokens, _longest_of_step(training))
        note(
            f"{training.recipe.name}: out of memory at step {training.progress.step + 1}; "
            f"{training.progress.chunk_tokens} tokens pass the encoder at a time from here on."
        )


def _longest_of_step(training: Training) -> TokenBatch:
    step = training.progress.step
    numbers = [training.batch_number(step, part) for part in range(training.recipe.gradient_accumulation_steps)]
    inputs = [training.make_input(training.batches.batch(number).texts()) for number in numbers]
    return max((each for each in inputs if isinstance(each, TokenBatch)), key=lambda each: int(each.lengths.sum()))


def _gradients(training: Training) -> Losses:
    """Accumulate the gradients of one optimiser step's losses."""
    losses = Losses()
    for part in range(training.recipe.gradient_accumulation_steps):
        number = training.batch_number(training.progress.step, part)
        batch = training.batches.batch(number)
        inputs = training.make_input(batch.texts())
        backward = _backward(training, batch, number, losses)
        if isinstance(inputs, TokenBatch):
            backward_in_chunks(training.model, inputs, training.progress.chunk_tokens, backward)
            losses.tokens += int(inputs.lengths.sum())
        else:
            backward_at_once(training.model(inputs), backward)
    return losses


def _backward(training: Training, batch: TripleBatch, number: int, losses: Losses) -> Callable[[Tensor], None]:
    def backward(embeddings: Tensor) -> None:
        views = split_views(embeddings, batch)
        terms = training.objective(views, number)
        _require_finite_loss(training, terms.loss, batch)
        training.accelerator.backward(terms.loss / training.recipe.gradient_accumulation_steps)
        losses.terms.append(terms)
        losses.queries, losses.positives = views.queries.detach(), views.positives.detach()

    return backward


def split_views(embeddings: Tensor, batch: TripleBatch) -> TripleEmbeddings:
    """Embeddings (2 n + m, D) of `batch.texts()` as queries, positives and negatives."""
    size, device = len(batch.queries), embeddings.device
    queries, positives, negatives = embeddings.split([size, size, len(batch.negatives)])
    return TripleEmbeddings(
        queries,
        positives,
        negatives,
        negative_owners=torch.from_numpy(batch.negative_owners).to(device),
        positive_ids=torch.from_numpy(batch.positives).to(device),
        negative_ids=torch.from_numpy(batch.negatives).to(device),
    )


def _require_finite_loss(training: Training, loss: Tensor, batch: TripleBatch) -> None:
    if not math.isfinite(loss.item()):
        _stop_diverged(training, f"the loss is {loss.item()}", batch.rows.tolist())


def _require_finite_gradient(training: Training, norm: float) -> None:
    """fp16's loss scaling overflows now and then and skips the step; many in a row are no accident."""
    progress = training.progress
    progress.overflows = 0 if math.isfinite(norm) else progress.overflows + 1
    allowed = OVERFLOWS_ALLOWED if training.accelerator.scaler is not None else 0
    if progress.overflows > allowed:
        parts = range(training.recipe.gradient_accumulation_steps)
        batches = [training.batches.batch(training.batch_number(progress.step, part)) for part in parts]
        what = f"the gradient is {norm}" + (f" in {progress.overflows} steps in a row" if allowed else "")
        _stop_diverged(training, what, [row for batch in batches for row in batch.rows.tolist()])


def _stop_diverged(training: Training, what: str, rows: list[int]) -> NoReturn:
    step = training.progress.step + 1
    files.write_json(training.folder.root / DIVERGED, {"step": step, "what": what, "rows": rows})
    shown = ", ".join(map(str, rows[:SHOWN_ROWS]))
    more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    raise RagcunError(
        f"{what} at step {step}; the batch's rows in the training data (from 0): {shown}{more}", DIVERGED_HINT
    )


def _mean_terms(losses: list[ObjectiveTerms]) -> dict[str, float | None]:
    """Each term averaged over the losses of one optimiser step; None for a term that is not computed."""
    means: dict[str, float | None] = {}
    for name in ("loss", "contrastive", "isotropy", "variance"):
        values = [value.item() for terms in losses if (value := getattr(terms, name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    # What the isotropy term is expected to be on N(0, I): it does not go to zero.
    means["isotropy_null"] = losses[-1].isotropy_null
    return means
