"""One arm of the experiment, from its recipe to its models: set up, fit, say how it ended."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ragcun_cli.console import note
from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.collection import Collection
from ragcun_cli.errors import EnvironmentUnfit, RagcunError, UsageError
from ragcun_cli.files import sweep_leftovers
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.model.feature_store import FeatureStore
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.train.checkpoint import load_checkpoint, newest_valid
from ragcun_cli.train.hardware import find_hardware
from ragcun_cli.train.log import keep_lines_until
from ragcun_cli.train.loop import fit
from ragcun_cli.train.memory import OUT_OF_MEMORY_HINT, is_out_of_memory
from ragcun_cli.train.plan import TrainingPlan, make_plan
from ragcun_cli.train.prepare import ArmData, build_encoder, calibrate, choose_chunk, prepare, read_data
from ragcun_cli.train.progress import Progress
from ragcun_cli.train.run_folder import (
    RunFolder,
    begin_run,
    check_may_train,
    locked,
    require_same_origin,
    run_id_of,
)
from ragcun_cli.train.trackers import end_trackers, require_trackers, start_trackers
from ragcun_cli.train.training import Training


@dataclass(frozen=True)
class ArmSummary:
    """How an arm ended. `model` is the folder to evaluate: the best on dev, or the final one without dev."""

    name: str
    folder: str
    model: str
    steps: int
    best_step: int | None
    best_dev_ndcg: float | None


def plan_arm(recipe: Recipe) -> dict[str, Any]:
    """What `train_arm` would do, with everything read that it would read; nothing is written in the run folder."""
    require_trackers(recipe)
    data, hardware = read_data(recipe), find_hardware()
    plan = make_plan(recipe, data.table, hardware)
    encoder = build_encoder(recipe).to(hardware.device)
    texts = data.table.texts
    calibrate(
        encoder,
        data.table,
        FeatureStore(encoder, cache_folder()),
        lambda numbers: encoder.tokenize([texts[number] for number in numbers.tolist()]),
    )
    return {
        "recipe": recipe.model_dump(),
        "plan": asdict(plan),
        "dev": _dev_entry(data.dev),
        "model": _model_entry(encoder),
        "refused": _refusal(recipe),
    }


def _refusal(recipe: Recipe) -> str | None:
    """Why a new run could not have the output folder; None if it could."""
    try:
        check_may_train(RunFolder.of(recipe), recipe, resume=False, overwrite=False)
    except UsageError as error:
        return f"{error.message}. {error.hint}"
    return None


def train_arm(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> ArmSummary:
    """Train one arm, or continue it.

    Raises:
        RagcunError: naming what is wrong and the cure; the run folder then says `failed` or is untouched.
    """
    require_trackers(recipe)
    folder = RunFolder.of(recipe)
    with locked(folder):
        return _train_locked(recipe, folder, resume, overwrite)


def _train_locked(recipe: Recipe, folder: RunFolder, resume: bool, overwrite: bool) -> ArmSummary:
    check_may_train(folder, recipe, resume, overwrite)
    for parent in (folder.root, folder.checkpoints):
        sweep_leftovers(parent)
    if resume and folder.state() == "finished" and folder.final_model.is_dir():
        note(f"{folder.root}: this run is finished; there is nothing left to do.")
        return _summary(recipe, folder, folder.progress())
    data, hardware = read_data(recipe), find_hardware()
    plan = make_plan(recipe, data.table, hardware)
    training = prepare(recipe, folder, data, plan, hardware)
    origin = _origin(data, training.encoder)
    if resume:
        require_same_origin(folder, origin)
        _restore(training)
    else:
        choose_chunk(training, data.table)
        begin_run(folder, recipe, _first_entries(training, origin))
    folder.write_status("running", training.progress, plan.total_steps)
    try:
        start_trackers(training.accelerator, recipe, folder, run_id_of(folder))
        note(_first_line(training))
        _report_cut_texts(training.plan, recipe)
        reason = fit(training)
    except KeyboardInterrupt:
        folder.write_status("interrupted", training.progress, plan.total_steps, "Ctrl-C")
        note(f"{folder.root}: stopped at step {training.progress.step}. {_how_to_continue(folder)}")
        raise
    except RagcunError as error:
        folder.write_status("failed", training.progress, plan.total_steps, error.message)
        raise
    except BaseException as error:
        folder.write_status("failed", training.progress, plan.total_steps, repr(error))
        if is_out_of_memory(error):
            raise EnvironmentUnfit(f"out of memory at step {training.progress.step + 1}", OUT_OF_MEMORY_HINT) from error
        raise
    finally:
        end_trackers(training.accelerator)
    folder.write_status("finished", training.progress, plan.total_steps, reason)
    return _summary(recipe, folder, training.progress)


def _restore(training: Training) -> None:
    root = training.folder.checkpoints
    newest, skipped = newest_valid(root)
    for sentence in skipped:
        note(sentence)
    if newest is None:
        raise UsageError(
            f"{root}: there is nothing to resume: no checkpoint here is whole",
            "Start again with --overwrite.",
        )
    modules = {"encoder": training.encoder, "objective": training.objective}
    training.progress = load_checkpoint(newest, modules, training.optimiser, training.accelerator)
    for log in (training.folder.metrics, training.folder.speed):
        keep_lines_until(log, training.progress.step)
    note(f"{newest}: resumed at step {training.progress.step}.")


def _first_entries(training: Training, origin: dict[str, str | None]) -> dict[str, Any]:
    """What environment.json says besides versions and machine."""
    return {
        "run_id": secrets.token_hex(8),
        "origin": origin,
        "plan": {**asdict(training.plan), "chunk_tokens": training.progress.chunk_tokens},
        "model": _model_entry(training.encoder),
    }


def _origin(data: ArmData, encoder: IsotropicGaussianEncoder) -> dict[str, str | None]:
    """Digests of what a recipe only names: a run must not go on with other texts or another base model."""
    return {
        "train_sha256": data.train_sha256,
        "dev_sha256": data.dev.sha256 if data.dev is not None else None,
        "base_identity": encoder.settings.base_identity,
    }


def _first_line(training: Training) -> str:
    recipe, plan, chunk = training.recipe, training.plan, training.progress.chunk_tokens
    passes = "encoder frozen, its features in float32 from the cache"
    if not recipe.freeze_base:
        passes = f"{100 * plan.padding_share:.1f} % of the computed tokens are padding"
        passes += f", {chunk} tokens in one pass" if chunk is not None else ", each batch in one pass"
    return (
        f"{recipe.name}: {plan.total_steps} steps of {recipe.batch_size * recipe.gradient_accumulation_steps} triples, "
        f"{_describe_negatives(plan)}, {passes}, {plan.precision_explained}"
    )


def _describe_negatives(plan: TrainingPlan) -> str:
    """How many passages a query is contrasted with."""
    shown = f"{plan.negatives_per_query:.4g} negatives per query"
    if plan.fewest_negatives < plan.negatives_per_query:
        shown += f" (fewest {plan.fewest_negatives})"
    if plan.equal_passages_per_query:
        shown += f", {plan.equal_passages_per_query:.3g} more left out that equal its own positive"
    return shown


def _report_cut_texts(plan: TrainingPlan, recipe: Recipe) -> None:
    if plan.texts_cut:
        note(f"{recipe.name}: {plan.texts_cut} texts are longer than {recipe.max_length} tokens and are cut.")


def _model_entry(encoder: IsotropicGaussianEncoder) -> dict[str, Any]:
    """What the run folder says of the model before its first step."""
    return {
        **asdict(encoder.settings),
        "parameters": _count(encoder.network, trainable=False) + _count(encoder.head, trainable=False),
        "trainable_parameters": _count(encoder.network, trainable=True) + _count(encoder.head, trainable=True),
        "head_parameters": _count(encoder.head, trainable=False),
        # Arms of one seed must show the same digest here.
        "initial_weights_sha256": _digest(encoder),
    }


def _count(module: nn.Module, trainable: bool) -> int:
    return sum(each.numel() for each in module.parameters() if each.requires_grad or not trainable)


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _dev_entry(dev: Collection | None) -> dict[str, Any] | None:
    if dev is None:
        return None
    return {"name": dev.name, "split": dev.split, "passages": len(dev.corpus), "queries": len(dev.queries)}


def _how_to_continue(folder: RunFolder) -> str:
    newest, _ = newest_valid(folder.checkpoints)
    if newest is None:
        return "It has no checkpoint yet: start again."
    return f"`ragcun train --recipe {folder.recipe} --resume` continues from {newest.name}."


def _summary(recipe: Recipe, folder: RunFolder, progress: Progress) -> ArmSummary:
    model = folder.best_model if folder.best_model.is_dir() else folder.final_model
    return ArmSummary(recipe.name, str(folder.root), str(model), progress.step, progress.best_step, progress.best_score)
