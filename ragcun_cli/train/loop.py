"""The training loop, from top to bottom: step, log, dev score, model, checkpoint.

metrics.jsonl has one object per logged step, and nothing that depends on the clock: of two equal runs it is equal.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ragcun_cli.arrays import Vectors
from ragcun_cli.console import StepProgress, note
from ragcun_cli.evaluate.isotropy import MINIMUM_TEXTS, measure_isotropy
from ragcun_cli.evaluate.scoring import Encode, score_in_memory
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.model.feature_store import BLOCK_TEXTS
from ragcun_cli.model.folder import save_encoder, write_pointer
from ragcun_cli.runs.folder import MODEL_ORIGIN, RECIPE
from ragcun_cli.runs.status import RUNNING
from ragcun_cli.train.checkpoint import capture
from ragcun_cli.train.prepare import build_encoder
from ragcun_cli.train.saving import Saver
from ragcun_cli.train.sharded import whole
from ragcun_cli.train.speed import Speedometer, training_flops_per_token
from ragcun_cli.train.step import Losses, nothing, optimiser_step
from ragcun_cli.train.stopping import Reason, StopRequests
from ragcun_cli.train.trackers import track
from ragcun_cli.train.training import Training
from ragcun_cli.train.world import World, broadcast_object, gather_rows

DEV_METRIC = "ndcg@10"


class TrainingStopped(Exception):
    """All processes have agreed to stop; the state is being saved."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.sentence())
        self.reason = reason


def fit(training: Training, saver: Saver | None = None) -> str:
    """Train from `progress.step` to the plan's last step, or until the dev score stops improving.

    saver: the main process's, None in the others.

    Returns:
        Why it ended before the last step; empty if it did not.

    Raises:
        TrainingStopped: if the run was asked to stop; its state is saved.
        RagcunError: if the loss or the gradient is no longer finite, or the disk is full.
    """
    recipe, plan, progress = training.recipe, training.plan, training.progress
    per_token = training_flops_per_token(training.encoder.network, plan.tokens_per_text)
    speed = Speedometer(training.hardware, per_token, training.world.size)
    clock = _Clock(recipe.save_every_minutes)
    before_update = saver.before_update if saver is not None else nothing
    with training.stop.at_steps():
        if progress.behind:
            _catch_up(training, saver, saved=True)
        # A run may have been killed between its last dev score and its end.
        stopped = _reason_to_stop(training) if progress.step < plan.total_steps else ""
        with StepProgress(recipe.name, plan.total_steps, "step", progress.step, recipe.log_every) as bar:
            while progress.step < plan.total_steps and not stopped:
                started = time.perf_counter()
                record, losses = optimiser_step(training, before_update)
                speed.count(
                    recipe.batch_size * recipe.gradient_accumulation_steps, losses.tokens, time.perf_counter() - started
                )
                progress.step += 1
                progress.tokens += losses.tokens
                step = progress.step
                bar.advance(figures=_figures(record, speed.triples_per_second()))
                last, epoch_ended = step == plan.total_steps, step % plan.steps_per_epoch == 0
                if step % recipe.log_every == 0 or step == 1 or last:
                    _log(training, record, losses, speed)
                progress.behind = epoch_ended or _due(step, recipe.eval_every, epoch_ended) or last
                reason, (late,) = training.stop.agreed(training.accelerator.device, clock.is_late())
                saves = bool(reason) or late or (_due(step, recipe.save_every, epoch_ended) and not last)
                if saves:
                    _save_checkpoint(training, saver)
                    clock.restart()
                if reason:
                    raise _stopped(saver, reason)
                if progress.behind:
                    _catch_up(training, saver, saves)
                    stopped = "" if last else _reason_to_stop(training)
    if stopped:
        note(f"{recipe.name}: {stopped}")
    if saver is not None:
        saver.finish()
    if recipe.keep_models in ("all", "final") or (recipe.keep_models == "best" and training.dev is None):
        _save_model(training, training.folder.final_model)
    return stopped


class _Clock:
    """Tells whether a checkpoint is due by time; one process that says so is enough."""

    def __init__(self, minutes: float | None) -> None:
        self._seconds = None if minutes is None else 60 * minutes
        self.restart()

    def restart(self) -> None:
        self._since = time.monotonic()

    def is_late(self) -> bool:
        return self._seconds is not None and time.monotonic() - self._since >= self._seconds


def _catch_up(training: Training, saver: Saver | None, saved: bool) -> None:
    """Make this step's dev score and epoch model. saved: whether its checkpoint exists already.

    The checkpoint records that they are still due, and a run resumed from it makes them first.
    """
    recipe, plan, step = training.recipe, training.plan, training.progress.step
    epoch_ended = step % plan.steps_per_epoch == 0
    try:
        if _due(step, recipe.eval_every, epoch_ended) or step == plan.total_steps:
            _score_dev(training)
    except ScoringAbandoned as abandoned:
        if not saved:
            _save_checkpoint(training, saver)
        raise _stopped(saver, abandoned.reason) from None
    if epoch_ended and recipe.keep_models == "all":
        _save_model(training, training.folder.epoch_model(step // plan.steps_per_epoch))
    training.progress.behind = False


def _stopped(saver: Saver | None, reason: Reason) -> TrainingStopped:
    if saver is not None:
        saver.finish()
    return TrainingStopped(reason)


def _log(training: Training, record: dict[str, Any], losses: Losses, speed: Speedometer) -> None:
    """Log to metrics.jsonl what a second run must reproduce, and to speed.jsonl what depends on the clock."""
    reading = {"step": record["step"], **speed.read()}
    record |= _geometry(losses)
    if not training.world.is_main:
        return
    append_line(training.folder.metrics, record)
    append_line(training.folder.speed, reading)
    track(training.accelerator, {**record, **reading}, record["step"])
    training.folder.write_status(RUNNING, training.progress, training.plan.total_steps)


def _geometry(losses: Losses) -> dict[str, float | None]:
    """Return unbiased IsoScore and mean cosine of the embeddings in the step's last loss, for each view."""
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
    encoder = _whole_encoder(training, keep=True).to(training.accelerator.device)
    encode = encode_together(training.encode_with(encoder), training.world, training.stop, training.accelerator.device)
    # All processes could compute this, but their agreement on the best model must not depend on a last digit.
    scored = broadcast_object(training.world, score_in_memory(encode, training.dev))
    progress = training.progress
    figures = {**scored.metrics, "isoscore": scored.isoscore}
    if training.world.is_main:
        append_line(training.folder.metrics, {"step": progress.step, "dev": figures})
    track(training.accelerator, {f"dev/{name}": figure for name, figure in figures.items()}, progress.step)
    progress.scores_without_gain += 1
    if progress.best_score is None or scored.metrics[DEV_METRIC] > progress.best_score:
        if training.recipe.keep_models in ("all", "best"):
            _save_encoder(training, encoder, training.folder.best_model)  # first: the disk may be full
        progress.best_score, progress.best_step = scored.metrics[DEV_METRIC], progress.step
        progress.scores_without_gain = 0


def _reason_to_stop(training: Training) -> str:
    patience, without = training.recipe.early_stopping, training.progress.scores_without_gain
    if patience is None or without < patience:
        return ""
    return (
        f"stopped at step {training.progress.step}: no better score in the last {without} dev scores; "
        f"the best was at step {training.progress.best_step}"
    )


def _whole_encoder(training: Training, keep: bool) -> IsotropicGaussianEncoder:
    """Return the encoder with all its weights; with FSDP2 every process takes part in collecting them.

    keep: whether this process needs it; otherwise the result must not be used.
    """
    if training.spread.strategy != "fsdp":
        return training.encoder
    collected = {name: whole(each.detach(), keep) for name, each in training.encoder.state_dict().items()}
    if not keep:
        return training.encoder
    # A temporary copy: kept for the whole run, it would take the memory that FSDP2 saves.
    local = training.recipe.model_copy(update={"base_model": str(training.base_folder), "base_revision": None})
    encoder = build_encoder(local)
    encoder.settings = training.encoder.settings
    encoder.load_state_dict(collected)
    return encoder


def _save_model(training: Training, folder: Path) -> None:
    _save_encoder(training, _whole_encoder(training, training.world.is_main), folder)


def _save_encoder(training: Training, encoder: IsotropicGaussianEncoder, folder: Path) -> None:
    if not training.world.is_main:
        return
    recipe = training.folder.recipe.read_text(encoding="utf-8")
    origin = json.dumps({"step": training.progress.step, "tokens": training.progress.tokens})
    save_encoder(encoder, folder, {RECIPE: recipe, MODEL_ORIGIN: origin + "\n"})
    if folder == training.folder.best_model or not training.folder.best_model.is_dir():
        write_pointer(training.folder.root, folder.name)


def _save_checkpoint(training: Training, saver: Saver | None) -> None:
    state = capture(training)
    if saver is not None and state is not None:
        saver.begin(state)


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one JSON object as a line."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


class ScoringAbandoned(Exception):
    """The run stops; its dev score is computed when it resumes."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.sentence())
        self.reason = reason


def encode_together(encode: Encode, world: World, stop: StopRequests, device: torch.device) -> Encode:
    """Spread `encode` over the processes; each receives all embeddings.

    Raises (when called):
        ScoringAbandoned: in all processes, if any was asked to stop; they agree on this after every block.
    """
    block_texts = BLOCK_TEXTS[device.type] * world.size

    def together(texts: Sequence[str]) -> Vectors:
        blocks = []
        for start in range(0, len(texts), block_texts):
            blocks.append(_block(encode, texts[start : start + block_texts], world, device))
            reason, _ = stop.agreed(device)
            if reason:
                raise ScoringAbandoned(reason)
        return np.concatenate(blocks) if len(blocks) != 1 else blocks[0]

    return together


def _block(encode: Encode, texts: Sequence[str], world: World, device: torch.device) -> Vectors:
    if world.size == 1:
        return encode(texts)
    places = [np.arange(rank, len(texts), world.size) for rank in range(world.size)]
    # With fewer texts than processes, each encodes them all: an empty share would have no width.
    if len(texts) < world.size:
        return encode(texts)
    own = torch.from_numpy(encode([texts[place] for place in places[world.rank].tolist()])).to(device)
    gathered: Vectors = gather_rows(own, places).cpu().numpy()
    return gathered
