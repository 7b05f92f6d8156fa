"""One arm of the experiment, from its recipe to its models: set up, fit, say how it ended."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from ragcun_cli.console import StepProgress, note
from ragcun_cli.data.batches import BatchSequence
from ragcun_cli.data.collection import Collection, read_collection
from ragcun_cli.data.sources import dev_collection, training_file
from ragcun_cli.data.triples import Triple, read_triples
from ragcun_cli.errors import RagcunError, UsageError
from ragcun_cli.files import sha256_of_file, sweep_leftovers
from ragcun_cli.losses.objective import Objective
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.model.backbone import enable_gradient_checkpointing, longest_input
from ragcun_cli.model.head import ResidualHead
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.train.checkpoint import load_checkpoint, newest_valid
from ragcun_cli.train.hardware import Hardware, find_hardware
from ragcun_cli.train.inputs import FeatureCache, KnownFeatures, from_features, from_tokens
from ragcun_cli.train.log import keep_lines_until
from ragcun_cli.train.loop import Training, first_batches, fit
from ragcun_cli.train.optimiser import build_optimiser
from ragcun_cli.train.plan import TrainingPlan, make_plan
from ragcun_cli.train.progress import Progress
from ragcun_cli.train.run_folder import RunFolder, begin_run, check_may_train, locked, require_same_origin

CALIBRATION_TRIPLES = 128  # 256 texts give the standard deviation over all dimensions to about 1 %


@dataclass(frozen=True)
class ArmData:
    """The texts of one arm, read and checked."""

    triples: list[Triple]
    train_sha256: str
    dev: Collection | None


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
    data, hardware = _read_data(recipe), find_hardware()
    plan = make_plan(recipe, data.triples, hardware)
    encoder = _build_encoder(recipe)
    _calibrate(encoder, data.triples)
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
    data, hardware = _read_data(recipe), find_hardware()
    plan = make_plan(recipe, data.triples, hardware)
    training = _prepare(recipe, folder, data, plan, hardware)
    origin = _origin(data, training.encoder)
    if resume:
        require_same_origin(folder, origin)
        _restore(training)
    else:
        begin_run(folder, recipe, {"origin": origin, "plan": asdict(plan), "model": _model_entry(training.encoder)})
    note(_first_line(recipe, plan))
    folder.write_status("running", training.progress, plan.total_steps)
    try:
        _encode_once(training)
        fit(training)
    except KeyboardInterrupt:
        folder.write_status("interrupted", training.progress, plan.total_steps, "Ctrl-C")
        note(f"{folder.root}: stopped at step {training.progress.step}. {_how_to_continue(folder)}")
        raise
    except RagcunError as error:
        folder.write_status("failed", training.progress, plan.total_steps, error.message)
        raise
    except BaseException as error:
        folder.write_status("failed", training.progress, plan.total_steps, repr(error))
        raise
    folder.write_status("finished", training.progress, plan.total_steps)
    return _summary(recipe, folder, training.progress)


def _read_data(recipe: Recipe) -> ArmData:
    root = Path(recipe.data.folder).expanduser()
    train = training_file(recipe.data.train, root)
    triples = read_triples(train)
    dev = None
    if recipe.data.dev is not None:
        dev = read_collection(dev_collection(recipe.data.dev, root))
    return ArmData(triples, sha256_of_file(train), dev)


def _build_encoder(recipe: Recipe) -> IsotropicGaussianEncoder:
    encoder = IsotropicGaussianEncoder.from_base(
        recipe.base_model,
        output_dim=recipe.output_dim,
        head=recipe.head,
        max_length=recipe.max_length,
        revision=recipe.base_revision,
        seed=recipe.seed,
    )
    limit = longest_input(encoder.network)
    if recipe.max_length > limit:
        raise UsageError(
            f"max_length: {recipe.max_length} is more than {recipe.base_model} reads ({limit} tokens)",
            f"--set max_length={limit}",
        )
    if recipe.gradient_checkpointing:
        enable_gradient_checkpointing(encoder.network, recipe.base_model)
    if recipe.freeze_base:
        encoder.network.requires_grad_(False)
    return encoder


def _calibrate(encoder: IsotropicGaussianEncoder, triples: list[Triple]) -> KnownFeatures:
    """Measure the head's scale on triples from all over the file: the same texts for every arm and seed.

    Returns the features it took, so that a frozen encoder need not take them again.
    """
    if not isinstance(encoder.head, ResidualHead):
        return KnownFeatures([], encoder.features([]))
    some = triples[:: max(1, len(triples) // CALIBRATION_TRIPLES)][:CALIBRATION_TRIPLES]
    texts = list(dict.fromkeys(text for each in some for text in (each.query, each.positive)))
    features = encoder.features(texts)
    encoder.head.calibrate(features)
    return KnownFeatures(texts, features)


def _prepare(recipe: Recipe, folder: RunFolder, data: ArmData, plan: TrainingPlan, hardware: Hardware) -> Training:
    accelerator = Accelerator(mixed_precision=plan.precision, cpu=hardware.device == "cpu")
    encoder = _build_encoder(recipe)
    encoder.to(accelerator.device)
    known = _calibrate(encoder, data.triples)
    objective = Objective(recipe).to(accelerator.device)
    optimiser = build_optimiser(encoder, objective, recipe)
    model, wrapped_optimiser = accelerator.prepare(encoder, optimiser)
    frozen_features = FeatureCache(encoder, known) if recipe.freeze_base else None
    # Dropout's numbers start here, the same in each arm whatever was drawn while setting up.
    torch.manual_seed(recipe.seed)
    return Training(
        recipe=recipe,
        plan=plan,
        folder=folder,
        triples=data.triples,
        batches=BatchSequence(data.triples, recipe.batch_size, recipe.seed),
        encoder=encoder,
        model=model,
        make_input=from_features(frozen_features) if frozen_features else from_tokens(encoder),
        encode=frozen_features.encode if frozen_features else encoder.encode,
        frozen_features=frozen_features,
        objective=objective,
        optimiser=wrapped_optimiser,
        accelerator=accelerator,
        dev=data.dev,
        progress=Progress(),
    )


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


def _encode_once(training: Training) -> None:
    """Pass the frozen encoder over every text of the run, sorted by length, before the head trains.

    The texts and their order depend on the plan alone, never on where a run resumes: in other company a text would
    be padded otherwise, and its features would differ in the last digit.
    """
    cache, plan = training.frozen_features, training.plan
    if cache is None:
        return
    if plan.total_steps < plan.steps_per_epoch:
        texts = [text for batch in first_batches(training, plan.total_steps) for text in batch.texts()]
    else:
        texts = [text for triple in training.triples for text in triple.texts()]
    if training.dev is not None:
        texts += [*training.dev.passages, *training.dev.queries]
    distinct = list(dict.fromkeys(texts))
    with StepProgress(f"{training.recipe.name}: encoding once", len(distinct), "texts") as bar:
        cache.fill(distinct, bar.advance)


def _origin(data: ArmData, encoder: IsotropicGaussianEncoder) -> dict[str, str | None]:
    """Digests of what a recipe only names: a run must not go on with other texts or another base model."""
    return {
        "train_sha256": data.train_sha256,
        "dev_sha256": data.dev.sha256 if data.dev is not None else None,
        "base_identity": encoder.settings.base_identity,
    }


def _first_line(recipe: Recipe, plan: TrainingPlan) -> str:
    return (
        f"{recipe.name}: {plan.total_steps} steps of {recipe.batch_size * recipe.gradient_accumulation_steps} triples, "
        f"{plan.negatives_per_query} negatives per query, {plan.precision_explained}"
    )


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
    return {"name": dev.name, "split": dev.split, "passages": len(dev.passages), "queries": len(dev.queries)}


def _how_to_continue(folder: RunFolder) -> str:
    newest, _ = newest_valid(folder.checkpoints)
    if newest is None:
        return "It has no checkpoint yet: start again."
    return f"`ragcun train --recipe {folder.recipe} --resume` continues from {newest.name}."


def _summary(recipe: Recipe, folder: RunFolder, progress: Progress) -> ArmSummary:
    model = folder.best_model if folder.best_model.is_dir() else folder.final_model
    return ArmSummary(recipe.name, str(folder.root), str(model), progress.step, progress.best_step, progress.best_score)
