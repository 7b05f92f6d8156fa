"""One arm of the experiment, from recipe to models: set it up, train it, report how it ended."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.console import note
from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.collection import Collection
from ragcun_cli.data.triples.table import TripleTable
from ragcun_cli.errors import (
    EnvironmentUnfit,
    ExitCode,
    Interrupted,
    RagcunError,
    UsageError,
    as_ragcun_error,
    is_full_disk,
)
from ragcun_cli.files import remove_folder, sweep_leftovers
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.model.feature_store import FeatureStore
from ragcun_cli.recipe.estimates import BYTES_OF_FLOAT, CHECKPOINT_FLOATS
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import RunFolder
from ragcun_cli.runs.status import FAILED, FINISHED, INTERRUPTED, RUNNING, ArmSummary, Progress
from ragcun_cli.train.backup import drop_backup, look_at_backup, open_backup, store_of
from ragcun_cli.train.checkpoint import load_checkpoint, newest_valid, restore_run_files
from ragcun_cli.train.disk import disk_is_full, folder_bytes, require_room
from ragcun_cli.train.hardware import find_hardware
from ragcun_cli.train.loop import TrainingStopped, fit
from ragcun_cli.train.memory import OUT_OF_MEMORY_HINT, choose_chunk, is_out_of_memory
from ragcun_cli.train.plan import TrainingPlan, make_plan, what_is_trained_on
from ragcun_cli.train.prepare import (
    ArmData,
    build_encoder,
    calibrate,
    describe_encoder,
    prepare,
    read_data,
)
from ragcun_cli.train.run_folder import (
    begin_run,
    check_may_train,
    checkpoints_in,
    locked,
    note_resume,
    require_same_origin,
    run_id_of,
)
from ragcun_cli.train.saving import Saver
from ragcun_cli.train.stopping import StopRequests
from ragcun_cli.train.strategy import join_process_group
from ragcun_cli.train.trackers import end_trackers, require_trackers, start_trackers
from ragcun_cli.train.training import Training
from ragcun_cli.train.trial import try_recipe
from ragcun_cli.train.world import World, broadcast_object, first_on_each_machine, world_of_environment

SECONDS_TO_LEAVE = 60.0  # to finish copying to the backup when a run is stopped: half of EC2's two minutes
SECONDS_TO_FINISH = 3600.0  # the same when a run finishes


def plan_arm(recipe: Recipe, trial: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe what `train_arm` would do: read all that it would read, and time a few steps as a `Trial`.

    Writes nothing in the run folder. trial: one already made for this recipe with another seed, reused if given.
    """
    require_trackers(recipe)
    store_of(recipe, RunFolder.of(recipe))  # checks that the backup's address is valid
    data, hardware = read_data(recipe), find_hardware()
    plan = make_plan(recipe, data.table, hardware, data.excluded.triples)
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
        "model": describe_encoder(encoder),
        "trial": trial or asdict(try_recipe(recipe, data, hardware)),
        "refused": _refusal(recipe),
    }


def _refusal(recipe: Recipe) -> str | None:
    """Say why a new run could not use the output folder; None if it could."""
    try:
        check_may_train(RunFolder.of(recipe), recipe, resume=False, overwrite=False)
    except UsageError as error:
        return f"{error.message}. {error.hint}"
    return None


def train_arm(
    recipe: Recipe, *, resume: bool = False, overwrite: bool = False, deadline: float | None = None
) -> ArmSummary:
    """Train or continue one arm, alone or as one of several processes started by torch.distributed.run.

    deadline: `time.time()` at which the run saves and stops; None for no deadline.

    Raises:
        Interrupted: if it was asked to stop; its state is saved.
        RagcunError: naming the problem and the cure; the run folder then says `failed` or is untouched.
    """
    require_trackers(recipe)
    world, folder = world_of_environment(), RunFolder.of(recipe)
    stop = StopRequests(world, deadline)
    with stop.listening(), locked(folder) if world.is_main else contextlib.nullcontext():
        return _train_locked(recipe, folder, world, stop, resume, overwrite)


@dataclass(frozen=True)
class _Beginning:
    """What the main process found in the run folder. checkpoint: where to resume; None to start afresh."""

    checkpoint: Path | None
    finished: ArmSummary | None = None


def _train_locked(
    recipe: Recipe, folder: RunFolder, world: World, stop: StopRequests, resume: bool, overwrite: bool
) -> ArmSummary:
    hardware = find_hardware(world.local_rank)
    # Only the main process uses the folder: other machines may not see its disk.
    beginning = _look(recipe, folder, resume, overwrite) if world.is_main else None
    join_process_group(world, hardware)
    beginning = broadcast_object(world, beginning)
    assert beginning is not None
    if broadcast_object(world, hardware.capability) != hardware.capability:
        raise EnvironmentUnfit(
            f"this machine has {hardware.name}, unlike the first one; all need the same precision and strategy",
            "Train on machines of the same kind.",
        )
    if beginning.finished is not None:
        return beginning.finished
    with first_on_each_machine(world):
        data = read_data(recipe)
    plan = make_plan(recipe, data.table, hardware, data.excluded.triples)
    if recipe.batch_size < world.size:
        raise UsageError(
            f"batch_size: {recipe.batch_size} triples cannot be split over {world.size} processes",
            f"Start at most {recipe.batch_size} processes with --processes.",
        )
    training = prepare(recipe, folder, data, plan, hardware, world, stop)
    origin = _origin(data, training.encoder)
    if beginning.checkpoint is not None:
        _restore(training, data.table, beginning.checkpoint, origin)
    else:
        choose_chunk(training, data.table)
        if world.is_main:
            _require_room(training)
            drop_backup(recipe, folder)  # first: a run that has begun must not find an older run's backup
            begin_run(folder, recipe, _first_entries(training, origin))
    return _fit_in_folder(training) if world.is_main else _fit_beside(training)


def _fit_in_folder(training: Training) -> ArmSummary:
    """Train in the main process, and record in the run folder how it went."""
    recipe, folder, plan = training.recipe, training.folder, training.plan
    folder.write_status(RUNNING, training.progress, plan.total_steps)
    backup = open_backup(recipe, folder)
    most_behind = (recipe.save_every or plan.steps_per_epoch) // 2
    saver = Saver(folder.root, folder.checkpoints, recipe.keep_last, backup.checkpoint_is_there, most_behind)
    try:
        start_trackers(training.accelerator, recipe, folder, run_id_of(folder), training.progress.step)
        note(_first_line(training))
        for sentence in what_is_trained_on(training.plan, recipe):
            note(f"{recipe.name}: {sentence}.")
        _report_cut_texts(training.plan, recipe)
        reason = fit(training, saver)
    except BaseException as error:
        end = _as_ending(error, training)
        if not isinstance(error, KeyboardInterrupt):
            with contextlib.suppress(OSError, RagcunError):
                saver.finish()  # even if the run failed, a checkpoint already begun is good
        folder.write_status(*end.status(training))
        backup.close(SECONDS_TO_LEAVE)
        end_trackers(training.accelerator)
        if end.error is error:
            raise
        raise end.error from error
    folder.write_status(FINISHED, training.progress, plan.total_steps, reason, ExitCode.DONE)
    summary: ArmSummary = broadcast_object(training.world, folder.summary(recipe))
    backup.models_are_there(training.progress)
    backup.close(SECONDS_TO_FINISH)
    if recipe.keep_models == "none" and folder.checkpoints.is_dir():
        remove_folder(folder.checkpoints)  # larger than the models, and no longer of use
    end_trackers(training.accelerator)
    return summary


def _fit_beside(training: Training) -> ArmSummary:
    """Train in a process other than the main one; it writes nothing."""
    try:
        fit(training, None)
    except TrainingStopped as stopped:
        raise Interrupted(stopped.reason.sentence()) from stopped
    summary: ArmSummary = broadcast_object(training.world, None)  # from the main process, which has the folder
    return summary


@dataclass(frozen=True)
class _Ending:
    """How an unfinished run ended: the state and reason for status.json, and the error to raise."""

    state: str
    reason: str
    error: BaseException

    def status(self, training: Training) -> tuple[str, Progress, int, str, int]:
        """The arguments of `write_status`."""
        code = ExitCode.CTRL_C if isinstance(self.error, KeyboardInterrupt) else ExitCode.FAILED
        known = self.error if isinstance(self.error, RagcunError) else as_ragcun_error(self.error)
        if known is not None:
            code = known.exit_code
        return self.state, training.progress, training.plan.total_steps, self.reason, int(code)


def _as_ending(error: BaseException, training: Training) -> _Ending:
    folder, step = training.folder, training.progress.step
    if isinstance(error, TrainingStopped):
        sentence = error.reason.sentence()
        return _Ending(
            INTERRUPTED,
            sentence,
            Interrupted(f"{folder.root}: stopped at step {step}: {sentence}", _to_continue(folder)),
        )
    if isinstance(error, KeyboardInterrupt):
        note(f"{folder.root}: stopped at step {step}. {_to_continue(folder)}")
        return _Ending(INTERRUPTED, "Ctrl-C", error)
    if isinstance(error, OSError) and is_full_disk(error):
        full = disk_is_full(folder.root, f"{error.filename or error.strerror}")
        return _Ending(FAILED, full.message, full)
    if isinstance(error, Interrupted):
        return _Ending(INTERRUPTED, error.message, error)
    if isinstance(error, RagcunError):
        return _Ending(FAILED, error.message, error)
    if is_out_of_memory(error):
        return _Ending(FAILED, repr(error), EnvironmentUnfit(f"out of memory at step {step + 1}", OUT_OF_MEMORY_HINT))
    return _Ending(FAILED, repr(error), error)


def _look(recipe: Recipe, folder: RunFolder, resume: bool, overwrite: bool) -> _Beginning:
    """Decide how to begin, from the run folder and, where that lacks something, from the backup."""
    check_may_train(folder, recipe, resume, overwrite)
    for parent in (folder.root, folder.checkpoints):
        sweep_leftovers(parent)
    look_at_backup(recipe, folder, resume, overwrite)
    if resume:
        check_may_train(folder, recipe, resume, overwrite)  # again, now with what the backup held
    if not resume:
        return _Beginning(None)
    if folder.state() == FINISHED and folder.has_its_models(recipe):
        note(f"{folder.root}: this run is finished; there is nothing left to do.")
        backup = open_backup(recipe, folder)  # which may lack files if copying was interrupted
        backup.models_are_there(folder.progress())
        backup.close(SECONDS_TO_FINISH)
        return _Beginning(None, folder.summary(recipe))
    if not checkpoints_in(folder.checkpoints):
        note(f"{folder.root}: no checkpoint yet; starting at the first step.")
        return _Beginning(None)
    newest, skipped = newest_valid(folder.checkpoints)
    for sentence in skipped:
        note(sentence)
    if newest is None:
        raise UsageError(
            f"{folder.checkpoints}: nothing to resume: no checkpoint here is complete",
            "Start again with --overwrite.",
        )
    for damaged in checkpoints_in(folder.checkpoints)[: len(skipped)]:
        remove_folder(damaged)  # otherwise they would count towards keep_last
    return _Beginning(newest)


def _restore(training: Training, table: TripleTable, checkpoint: Path, origin: dict[str, str | None]) -> None:
    main = training.world.is_main
    if main:
        require_same_origin(training.folder, origin)
    inexact = load_checkpoint(training, checkpoint if main else None)
    if inexact:
        choose_chunk(training, table)  # the share of each batch, or the memory, has changed
    elif training.recipe.chunk_tokens is not None:
        known = training.progress.chunk_tokens or training.recipe.chunk_tokens
        training.progress.chunk_tokens = min(known, training.recipe.chunk_tokens)
    if not main:
        return
    _require_room(training)
    restore_run_files(checkpoint, training.folder)
    note_resume(training.folder, training.progress.step, asdict(training.spread))
    note(f"{checkpoint}: resumed at step {training.progress.step}.")
    for sentence in inexact:
        note(f"{training.recipe.name}: {sentence}")


def _require_room(training: Training) -> None:
    """Require disk space for the kept checkpoints, the one being written, and the models still to come."""
    folder, plan, recipe = training.folder, training.plan, training.recipe
    checkpoint = sum(each.numel() for each in training.trainable()) * BYTES_OF_FLOAT * CHECKPOINT_FLOATS
    model = sum(each.numel() for each in training.encoder.parameters()) * BYTES_OF_FLOAT
    epochs = plan.total_steps // plan.steps_per_epoch - training.progress.step // plan.steps_per_epoch
    models = (
        model
        * {
            "all": epochs + 1 + (training.dev is not None),
            "best": 1,
            "final": 1,
            "none": 0,
        }[recipe.keep_models]
    )
    present = sum(map(folder_bytes, checkpoints_in(folder.checkpoints)))
    require_room(folder.root, checkpoint, recipe.keep_last + 1, present, models)


def _first_entries(training: Training, origin: dict[str, str | None]) -> dict[str, Any]:
    """What environment.json says besides versions and machine."""
    return {
        "run_id": secrets.token_hex(8),
        "origin": origin,
        "plan": {**asdict(training.plan), "chunk_tokens": training.progress.chunk_tokens},
        "model": training.model_entry,
        "spread": asdict(training.spread),
    }


def _origin(data: ArmData, encoder: IsotropicGaussianEncoder) -> dict[str, str | None]:
    """Digests of what a recipe only names: a run must not resume with other texts or another base model."""
    return {
        "train_sha256": data.train_sha256,
        "dev_sha256": data.dev.sha256 if data.dev is not None else None,
        "base_identity": encoder.settings.base_identity,
        "excluded_sha256": data.excluded_sha256,
    }


def _first_line(training: Training) -> str:
    recipe, plan, chunk = training.recipe, training.plan, training.progress.chunk_tokens
    passes = "frozen encoder, float32 features from the cache"
    if not recipe.freeze_base:
        passes = f"{100 * plan.padding_share:.1f} % of the computed tokens are padding"
        passes += f", {chunk} tokens in one pass" if chunk is not None else ", each batch in one pass"
    if training.world.size > 1:
        passes += f", {training.spread.strategy} in {training.world.size} processes"
    return (
        f"{recipe.name}: {plan.total_steps} steps of {recipe.batch_size * recipe.gradient_accumulation_steps} triples, "
        f"{_describe_negatives(plan)}, {passes}, {plan.precision_explained}"
    )


def _describe_negatives(plan: TrainingPlan) -> str:
    """Say how many passages each query is contrasted with."""
    shown = f"{plan.negatives_per_query:.4g} negatives per query"
    if plan.fewest_negatives < plan.negatives_per_query:
        shown += f" (minimum {plan.fewest_negatives})"
    if plan.equal_passages_per_query:
        shown += f", plus {plan.equal_passages_per_query:.3g} masked per query as copies of its positive"
    return shown


def _report_cut_texts(plan: TrainingPlan, recipe: Recipe) -> None:
    if plan.texts_cut:
        note(f"{recipe.name}: {plan.texts_cut} texts are longer than {recipe.max_length} tokens and are truncated.")


def _dev_entry(dev: Collection | None) -> dict[str, Any] | None:
    if dev is None:
        return None
    return {"name": dev.name, "split": dev.split, "passages": len(dev.corpus), "queries": len(dev.queries)}


def _to_continue(folder: RunFolder) -> str:
    kept = checkpoints_in(folder.checkpoints)
    if not kept:
        return "There is no checkpoint yet; the same command with --resume starts over."
    return f"The same command with --resume continues from {kept[0].name}."
