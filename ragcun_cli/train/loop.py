"""The training loop, from top to bottom: step, log, dev score, model, checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ragcun_cli.console import StepProgress, note
from ragcun_cli.evaluate.isotropy import MINIMUM_TEXTS, measure_isotropy
from ragcun_cli.evaluate.models import RECIPE
from ragcun_cli.evaluate.scoring import score_in_memory
from ragcun_cli.model.folder import save_encoder
from ragcun_cli.train.checkpoint import save_checkpoint
from ragcun_cli.train.log import append_line
from ragcun_cli.train.speed import Speedometer, training_flops_per_token
from ragcun_cli.train.step import Losses, optimiser_step
from ragcun_cli.train.trackers import track
from ragcun_cli.train.training import Training

DEV_METRIC = "ndcg@10"


def fit(training: Training) -> str:
    """Train from `progress.step` to the plan's last step, or until the dev score has long not risen.

    Returns:
        Why it ended before the last step; empty if it did not.

    Raises:
        RagcunError: if loss or gradient are no longer finite.
    """
    recipe, plan, progress = training.recipe, training.plan, training.progress
    speed = Speedometer(training.hardware, training_flops_per_token(training.encoder.network, plan.tokens_per_text))
    stopped = _reason_to_stop(training)  # a run may have been killed between its last dev score and its end
    with StepProgress(recipe.name, plan.total_steps, "step", progress.step, recipe.log_every) as bar:
        while progress.step < plan.total_steps and not stopped:
            started = time.perf_counter()
            record, losses = optimiser_step(training)
            speed.count(
                recipe.batch_size * recipe.gradient_accumulation_steps, losses.tokens, time.perf_counter() - started
            )
            progress.step += 1
            step = progress.step
            bar.advance(figures=_figures(record, speed.triples_per_second()))
            last = step == plan.total_steps
            if step % recipe.log_every == 0 or step == 1 or last:
                _log(training, record, losses, speed)
            epoch_ended = step % plan.steps_per_epoch == 0
            if _due(step, recipe.eval_every, epoch_ended) or last:
                _score_dev(training)
                stopped = "" if last else _reason_to_stop(training)
            if epoch_ended:
                _save_model(training, training.folder.epoch_model(step // plan.steps_per_epoch))
            if _due(step, recipe.save_every, epoch_ended) and not last:
                _save_checkpoint(training)
    if stopped:
        note(f"{recipe.name}: {stopped}")
    _save_model(training, training.folder.final_model)
    return stopped


def _log(training: Training, record: dict[str, Any], losses: Losses, speed: Speedometer) -> None:
    """metrics.jsonl gets what a second run must equal, speed.jsonl what the clock says."""
    reading = {"step": record["step"], **speed.read()}
    record |= _geometry(losses)
    append_line(training.folder.metrics, record)
    append_line(training.folder.speed, reading)
    track(training.accelerator, {**record, **reading}, record["step"])
    training.folder.write_status("running", training.progress, training.plan.total_steps)


def _geometry(losses: Losses) -> dict[str, float | None]:
    """Unbiased IsoScore and mean cosine of the step's last loss's embeddings, each view by itself."""
    figures: dict[str, float | None] = {}
    for name, view in (("queries", losses.queries), ("positives", losses.positives)):
        enough = len(view) >= MINIMUM_TEXTS
        isotropy = measure_isotropy(view.float().cpu().numpy()) if enough else None
        figures[f"isoscore_{name}"] = isotropy.isoscore if isotropy else None
        figures[f"mean_cosine_{name}"] = isotropy.mean_cosine if isotropy else None
    return figures


def _figures(record: dict[str, Any], triples_per_second: float) -> dict[str, str]:
    terms = {
        name: f"{record[name]:.3f}" for name in ("contrastive", "isotropy", "variance") if record[name] is not None
    }
    return {"loss": f"{record['loss']:.3f}", "triples/s": f"{triples_per_second:.1f}", **terms}


def _due(step: int, every: int | None, epoch_ended: bool) -> bool:
    return epoch_ended if every is None else step % every == 0


def _score_dev(training: Training) -> None:
    """Log the dev scores and keep the model if it is the best so far by nDCG@10.

    Never by the loss: the arms' losses have different terms, so the lowest says nothing about retrieval.
    """
    if training.dev is None:
        return
    scored = score_in_memory(training.encode, training.dev)
    progress = training.progress
    figures = {**scored.metrics, "isoscore": scored.isoscore}
    append_line(training.folder.metrics, {"step": progress.step, "dev": figures})
    track(training.accelerator, {f"dev/{name}": figure for name, figure in figures.items()}, progress.step)
    progress.scores_without_gain += 1
    if progress.best_score is None or scored.metrics[DEV_METRIC] > progress.best_score:
        _save_model(training, training.folder.best_model)  # first: a disk may be full
        progress.best_score, progress.best_step = scored.metrics[DEV_METRIC], progress.step
        progress.scores_without_gain = 0


def _reason_to_stop(training: Training) -> str:
    patience, without = training.recipe.early_stopping, training.progress.scores_without_gain
    if patience is None or without < patience:
        return ""
    return (
        f"stopped at step {training.progress.step}: no better dev score in the last {without}, "
        f"the best was at step {training.progress.best_step}"
    )


def _save_model(training: Training, folder: Path) -> None:
    save_encoder(training.encoder, folder, {RECIPE: training.folder.recipe.read_text(encoding="utf-8")})


def _save_checkpoint(training: Training) -> None:
    modules = {"encoder": training.encoder, "objective": training.objective}
    save_checkpoint(training.folder.checkpoints, training.progress, modules, training.optimiser, training.accelerator)
