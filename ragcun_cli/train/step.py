"""One optimiser step: learning rate, losses, gradients, clipping, update."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from ragcun_cli import files
from ragcun_cli.arrays import Numbers
from ragcun_cli.console import note
from ragcun_cli.data.batches import TripleBatch
from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.errors import EnvironmentUnfit, RagcunError
from ragcun_cli.losses.objective import ObjectiveTerms, TripleEmbeddings
from ragcun_cli.train.chunks import Exchange, backward_at_once, backward_in_chunks
from ragcun_cli.train.hardware import tensor_float32
from ragcun_cli.train.memory import halved, is_out_of_memory, release_memory
from ragcun_cli.train.optimiser import set_rates
from ragcun_cli.train.random_state import random_state, set_random_state
from ragcun_cli.train.run_folder import DIVERGED
from ragcun_cli.train.sharded import total_norm
from ragcun_cli.train.training import Training
from ragcun_cli.train.world import gather_rows

DIVERGED_HINT = (
    "Lower the learning rates or the lambdas, or set mixed_precision: no, and train into another folder. Anything "
    "saved earlier is kept; diverged.json in the run folder lists the rows."
)
SHOWN_ROWS = 16
OVERFLOWS_ALLOWED = 20  # consecutive fp16 steps that may be skipped; lowering the loss scale helps within a few


class Losses:
    """The losses of one optimiser step, and the last loss's embeddings (n, D) of queries and positives."""

    def __init__(self) -> None:
        self.terms: list[ObjectiveTerms] = []
        self.tokens = 0
        self.queries = torch.empty(0)
        self.positives = torch.empty(0)


def nothing() -> None:
    """Do nothing, for runs that save nothing."""


def optimiser_step(training: Training, before_update: Callable[[], None] = nothing) -> tuple[dict[str, Any], Losses]:
    """Train one step and return its metrics.jsonl record, without what only logged steps measure.

    If memory runs out, the step starts over with half as many tokens per pass; the batch does not change.
    `before_update()` is called just before the weights change.

    Raises:
        RagcunError: if the loss or the gradient is no longer finite.
    """
    recipe, step = training.recipe, training.progress.step
    rates = set_rates(training.optimiser, rate_factor(step, training.plan.warmup_steps, training.plan.total_steps))
    training.encoder.train()
    if recipe.freeze_base:
        training.encoder.network.eval()
    with tensor_float32(training.hardware):
        losses = _gradients_that_fit(training)
    norm = _clip_gradients(training)
    triples_per_step = recipe.batch_size * recipe.gradient_accumulation_steps
    temperature = training.objective.temperature.item()  # the one that the losses above used
    _require_finite_gradient(training, norm)
    before_update()
    training.optimiser.step()
    training.optimiser.zero_grad()
    training.objective.keep_temperature_in_range()
    record = {
        "step": step + 1,
        # Passes over all triples, including those that do not fill a whole step.
        "epoch": round((step + 1) * triples_per_step / training.plan.triples, 4),
        **_mean_terms(losses.terms),
        "temperature": temperature,
        "tokens": training.progress.tokens + losses.tokens,
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
            if training.world.size > 1:
                raise _out_of_memory_together(training) from error
        # Outside the except block: while the error exists, it keeps the failed step's tensors alive.
        training.optimiser.zero_grad()
        release_memory()
        set_random_state(before)
        longest = max(int(lengths.sum()) for lengths in _own_lengths(training, training.progress.step))
        training.progress.chunk_tokens = halved(training.progress.chunk_tokens, longest)
        note(
            f"{training.recipe.name}: out of memory at step {training.progress.step + 1}; "
            f"the encoder takes {training.progress.chunk_tokens} tokens at a time from here on."
        )


def _out_of_memory_together(training: Training) -> EnvironmentUnfit:
    """Return the error to raise: the others wait for this process's gradients, so the step cannot start over."""
    step = training.progress.step
    longest = max(int(lengths.sum()) for lengths in _own_lengths(training, step))
    smaller = halved(training.progress.chunk_tokens, longest)
    return EnvironmentUnfit(
        f"out of memory at step {step + 1} in process {training.world.rank} of {training.world.size}",
        f"Continue with half as many tokens per pass: --resume --set chunk_tokens={smaller}",
    )


def _own_lengths(training: Training, step: int) -> list[Numbers]:
    """Return the token counts of the texts that this process encodes, for each loss of a step."""
    numbers = [training.batch_number(step, part) for part in range(training.recipe.gradient_accumulation_steps)]
    batches = [training.batches.batch(number).texts() for number in numbers]
    return [training.text_lengths[texts[training.shares(texts)[training.world.rank]]] for texts in batches]


def _gradients(training: Training) -> Losses:
    """Accumulate the gradients of one optimiser step's losses."""
    losses = Losses()
    parts = training.recipe.gradient_accumulation_steps
    for part in range(parts):
        number = training.batch_number(training.progress.step, part)
        batch = training.batches.batch(number)
        texts = batch.texts()
        shares = training.shares(texts)
        inputs = training.make_input(texts[shares[training.world.rank]])
        backward = _backward(training, batch, number, shares, losses)
        exchange = _exchange(training, [texts[share] for share in shares], is_last=part == parts - 1)
        if isinstance(inputs, TokenBatch):
            chunks = training.chunks(inputs.lengths)
            backward_in_chunks(training.model, inputs, chunks, backward, exchange)
            losses.tokens += int(training.text_lengths[texts].sum())
        else:
            backward_at_once(functools.partial(training.model, inputs), backward, exchange)
    return losses


def _exchange(training: Training, texts: list[Numbers], is_last: bool) -> Exchange:
    """Say when this part of a step exchanges gradients. texts: those of each process."""
    if training.spread.strategy == "none":
        return Exchange()
    if training.spread.strategy == "ddp":
        return Exchange(functools.partial(training.accelerator.no_sync, training.model), is_last)
    if training.recipe.freeze_base:
        return Exchange()
    passes = [len(training.chunks(training.text_lengths[of_process])) for of_process in texts]
    return Exchange(extra_passes=max(passes) - passes[training.world.rank])


def _backward(
    training: Training, batch: TripleBatch, number: int, shares: list[Numbers], losses: Losses
) -> Callable[[Tensor], None]:
    world = training.world

    def backward(own: Tensor) -> None:
        embeddings = own if world.size == 1 else gather_rows(own, shares)
        views = split_views(embeddings, batch)
        terms = training.objective(views, number)
        _require_finite_loss(training, terms.loss, batch)
        training.accelerator.backward(terms.loss / training.recipe.gradient_accumulation_steps)
        if world.size > 1:
            assert own.grad is not None
            own.grad.mul_(world.size)  # because DDP and FSDP2 average it
        losses.terms.append(terms)
        losses.queries, losses.positives = views.queries.detach(), views.positives.detach()

    return backward


def _clip_gradients(training: Training) -> float:
    """Clip the gradients to the recipe's largest norm and return the norm before clipping."""
    parameters, most = training.trainable(), training.recipe.max_gradient_norm
    if training.spread.strategy != "fsdp":
        return float(training.accelerator.clip_grad_norm_(parameters, most))
    # torch's own function cannot mix whole parameters, such as a temperature, with sharded ones.
    training.accelerator.unscale_gradients()
    gradients = [each.grad for each in parameters if each.grad is not None]
    norm = total_norm(gradients)
    factor = (most / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.to(gradient.dtype))
    return float(norm)


def split_views(embeddings: Tensor, batch: TripleBatch) -> TripleEmbeddings:
    """Split embeddings (2 n + m, D) of `batch.texts()` into queries, positives and negatives."""
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
    """Allow fp16's loss scaling an occasional overflow, which skips the step; many in a row mean divergence."""
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
    if training.world.is_main:
        files.write_json(training.folder.root / DIVERGED, {"step": step, "what": what, "rows": rows})
    shown = ", ".join(map(str, rows[:SHOWN_ROWS]))
    more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    raise RagcunError(
        f"{what} at step {step}; rows of this batch in the training data (from 0): {shown}{more}", DIVERGED_HINT
    )


def _mean_terms(losses: list[ObjectiveTerms]) -> dict[str, float | None]:
    """Average each term over the losses of one optimiser step; None for a term that is not computed."""
    means: dict[str, float | None] = {}
    for name in ("loss", "contrastive", "isotropy", "variance"):
        values = [value.item() for terms in losses if (value := getattr(terms, name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    # The isotropy term's expected value on N(0, I): it does not approach zero.
    means["isotropy_null"] = losses[-1].isotropy_null
    return means


def rate_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the factor for the learning rates at optimiser step `step`, counted from 0.

    The first step already trains (1 / warmup_steps) and the last still does.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))
