"""The training loop, from top to bottom: batches, loss, step, log, dev score, checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ragcun_cli.console import StepProgress
from ragcun_cli.data.batches import BatchSequence, TripleBatch
from ragcun_cli.data.collection import Collection
from ragcun_cli.data.triples import Triple
from ragcun_cli.errors import RagcunError
from ragcun_cli.evaluate.models import RECIPE
from ragcun_cli.evaluate.scoring import Encode, evaluate
from ragcun_cli.losses.objective import Objective, ObjectiveTerms
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.model.folder import save_encoder
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.train.checkpoint import save_checkpoint
from ragcun_cli.train.inputs import EncoderInput, FeatureCache, MakeInput, embed
from ragcun_cli.train.log import append_line
from ragcun_cli.train.optimiser import set_rates
from ragcun_cli.train.plan import TrainingPlan
from ragcun_cli.train.progress import Progress
from ragcun_cli.train.run_folder import RunFolder
from ragcun_cli.train.schedule import rate_factor

DEV_METRIC = "ndcg@10"
DIVERGED_HINT = "Lower the learning rates or the lambdas, or set mixed_precision: no. Earlier checkpoints are kept."


@dataclass
class Training:
    """Everything a loop needs, prepared by `ragcun_cli.train.arm`.

    model: the encoder as Accelerate wrapped it; encode: texts -> embeddings for the dev score; dev: None where the
    recipe names no dev set; frozen_features: of a frozen encoder, None for one that trains. `progress` is the only
    part that the loop changes besides the tensors.
    """

    recipe: Recipe
    plan: TrainingPlan
    folder: RunFolder
    triples: list[Triple]
    batches: BatchSequence
    encoder: IsotropicGaussianEncoder
    model: Callable[[EncoderInput], Tensor]
    make_input: MakeInput
    encode: Encode
    frozen_features: FeatureCache | None
    objective: Objective
    optimiser: Any
    accelerator: Accelerator
    dev: Collection | None
    progress: Progress


def fit(training: Training) -> None:
    """Train from `progress.step` to the plan's last step.

    Raises:
        RagcunError: if the loss is no longer finite.
    """
    recipe, plan, progress = training.recipe, training.plan, training.progress
    with StepProgress(recipe.name, plan.total_steps, "step", progress.step, recipe.log_every) as bar:
        started, first_step = time.monotonic(), progress.step
        while progress.step < plan.total_steps:
            record = _optimiser_step(training)
            progress.step += 1
            step = progress.step
            rate = (step - first_step) * _triples_per_step(recipe) / (time.monotonic() - started)
            if step % recipe.log_every == 0 or step in (1, plan.total_steps):
                append_line(training.folder.metrics, record)
                append_line(training.folder.speed, {"step": step, "triples_per_second": round(rate, 2)})
                training.folder.write_status("running", progress, plan.total_steps)
            bar.advance(figures=_figures(record, rate))
            epoch_ended = step % plan.steps_per_epoch == 0
            last = step == plan.total_steps
            if _due(step, recipe.eval_every, epoch_ended) or last:
                _score_dev(training)
            if epoch_ended:
                _save_model(training, training.folder.epoch_model(step // plan.steps_per_epoch))
            if _due(step, recipe.save_every, epoch_ended) and not last:
                _save_checkpoint(training)
    _save_model(training, training.folder.final_model)


def first_batches(training: Training, steps: int) -> Iterator[TripleBatch]:
    """The batches of the run's first so many optimiser steps."""
    recipe, plan = training.recipe, training.plan
    for step in range(steps):
        for part in range(recipe.gradient_accumulation_steps):
            yield training.batches.batch(_batch_number(step, part, plan, recipe))


def _optimiser_step(training: Training) -> dict[str, Any]:
    """One step of the optimiser; returns what metrics.jsonl says of it."""
    recipe, step = training.recipe, training.progress.step
    rates = set_rates(training.optimiser, rate_factor(step, training.plan.warmup_steps, training.plan.total_steps))
    training.encoder.train()
    if recipe.freeze_base:
        training.encoder.network.eval()
    losses = []
    for part in range(recipe.gradient_accumulation_steps):
        number = _batch_number(step, part, training.plan, recipe)
        batch = training.batches.batch(number)
        terms = training.objective(embed(training.model, training.make_input, batch), number)
        _require_finite(terms.loss, step + 1, batch.rows)
        training.accelerator.backward(terms.loss / recipe.gradient_accumulation_steps)
        losses.append(terms)
    norm = float(training.accelerator.clip_grad_norm_(_trainable(training), recipe.max_gradient_norm))
    temperature = training.objective.temperature.item()  # the one that the losses above used
    if not math.isfinite(norm) and training.accelerator.scaler is None:
        raise RagcunError(f"the gradient is {norm} at step {step + 1}", DIVERGED_HINT)
    training.optimiser.step()
    training.optimiser.zero_grad()
    training.objective.keep_temperature_in_range()
    return {
        "step": step + 1,
        "epoch": round((step + 1) / training.plan.steps_per_epoch, 4),
        **_mean_terms(losses),
        "temperature": temperature,
        **{f"learning_rate_{part}": rate for part, rate in rates.items()},
        # fp16's loss scaling overflows now and then and skips the step; JSON has no infinity.
        "gradient_norm": norm if math.isfinite(norm) else None,
    }


def _batch_number(step: int, part: int, plan: TrainingPlan, recipe: Recipe) -> int:
    """Batches are numbered over the run; those that do not fill an epoch's last step are passed over."""
    epoch, place = divmod(step, plan.steps_per_epoch)
    per_epoch = plan.triples // recipe.batch_size
    return epoch * per_epoch + place * recipe.gradient_accumulation_steps + part


def _require_finite(loss: Tensor, step: int, rows: list[int]) -> None:
    if not math.isfinite(loss.item()):
        shown = ", ".join(map(str, rows[:8]))
        raise RagcunError(
            f"the loss is {loss.item()} at step {step}; the batch's rows (from 0) begin {shown}",
            DIVERGED_HINT,
        )


def _trainable(training: Training) -> list[torch.nn.Parameter]:
    parameters = [*training.encoder.parameters(), *training.objective.parameters()]
    return [parameter for parameter in parameters if parameter.requires_grad]


def _mean_terms(losses: list[ObjectiveTerms]) -> dict[str, float | None]:
    """Each term averaged over the losses of one optimiser step; None for a term that is not computed."""
    means: dict[str, float | None] = {}
    for name in ("loss", "contrastive", "isotropy", "variance"):
        values = [value.item() for terms in losses if (value := getattr(terms, name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def _figures(record: dict[str, Any], triples_per_second: float) -> dict[str, str]:
    terms = {
        name: f"{record[name]:.3f}" for name in ("contrastive", "isotropy", "variance") if record[name] is not None
    }
    return {"loss": f"{record['loss']:.3f}", "triples/s": f"{triples_per_second:.1f}", **terms}


def _triples_per_step(recipe: Recipe) -> int:
    return recipe.batch_size * recipe.gradient_accumulation_steps


def _due(step: int, every: int | None, epoch_ended: bool) -> bool:
    return epoch_ended if every is None else step % every == 0


def _score_dev(training: Training) -> None:
    """Log the dev scores and keep the model if it is the best so far by nDCG@10.

    Never by the loss: the arms' losses have different terms, so the lowest says nothing about retrieval.
    """
    if training.dev is None:
        return
    scored = evaluate(training.encode, training.dev)
    progress = training.progress
    isoscore = scored.isotropy.isoscore if scored.isotropy is not None else None
    append_line(training.folder.metrics, {"step": progress.step, "dev": {**scored.metrics, "isoscore": isoscore}})
    if progress.best_score is None or scored.metrics[DEV_METRIC] > progress.best_score:
        progress.best_score, progress.best_step = scored.metrics[DEV_METRIC], progress.step
        _save_model(training, training.folder.best_model)


def _save_model(training: Training, folder: Path) -> None:
    save_encoder(training.encoder, folder, {RECIPE: training.folder.recipe.read_text(encoding="utf-8")})


def _save_checkpoint(training: Training) -> None:
    modules = {"encoder": training.encoder, "objective": training.objective}
    save_checkpoint(training.folder.checkpoints, training.progress, modules, training.optimiser, training.accelerator)
