"""Run a short version of a recipe's real training: try, train, kill, resume and score it.

1. A process tries the recipe (`ragcun_cli.train.trial`): memory for the longest batch, loss, speed.
2. `ragcun train` trains on a sample of the data, on all GPUs, until one step after a complete checkpoint; then
   all its processes are killed.
3. The same command with --resume continues to the end. The steps that both ran must have the same loss.
4. `ragcun eval beir` scores the model on a hundred passages.

All of this uses a separate folder beside the recipe's output folder, with a separate cache.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli import files
from ragcun_cli.errors import EnvironmentUnfit, RagcunError
from ragcun_cli.preflight.answering import Answerer, OutOfTime, ask
from ragcun_cli.preflight.checks import FAILED, OK, REMARK, Check, failed
from ragcun_cli.preflight.trial_process import COLLECTION, TRAINING
from ragcun_cli.quantities import shown_bytes
from ragcun_cli.recipe.rendering import render_recipe
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import METRICS, whole_records

# Steps of the training that is killed; the checkpoint comes halfway. More are tried if they end too fast.
STEPS = (6, 60, 600)
FAST_STEP = 0.2  # seconds: below it the shortest training could end before it is killed
SAMPLE_ROWS = 1024  # or a whole batch, if that is more
GPU_TOLERANCE = 1e-2  # of the loss: GPU kernels sum in a different order each time
TRIAL, KILLED, RESUMED, SCORED = "steps", "checkpoint", "kill and resume", "evaluation"


@dataclass(frozen=True)
class ShortTraining:
    """The checks, and what was measured: a `Trial`'s fields, or None if the trial failed."""

    checks: list[Check]
    trial: dict[str, Any] | None


def try_training(recipe: Recipe, folder: Path, deadline: float) -> ShortTraining:
    """Do everything above in `folder`, which must be empty; the caller removes it.

    deadline: the `time.monotonic()` at which it ends, finished or not.
    """
    found = _Findings(recipe.name)
    try:
        _go_through(recipe, folder, deadline, found)
    except OutOfTime as late:
        # Without a trial nothing is known about the recipe; if only later parts are late, a remark is enough.
        status = FAILED if found.trial is None else REMARK
        cure = "Check fewer recipes at a time, so that each has longer; or set a smaller max_length or batch_size."
        found.checks.append(Check(f"{recipe.name}: {found.part}", status, late.message, cure))
    except RagcunError as error:
        found.checks.append(failed(f"{recipe.name}: {found.part}", error))
    return ShortTraining(found.checks, found.trial)


class _Findings:
    """The findings so far, and the part in progress."""

    def __init__(self, recipe: str) -> None:
        self.recipe = recipe
        self.part = TRIAL
        self.checks: list[Check] = []
        self.trial: dict[str, Any] | None = None

    def add(self, part: str, status: str, seen: str, cure: str = "") -> None:
        self.checks.append(Check(f"{self.recipe}: {part}", status, seen, cure))


def _go_through(recipe: Recipe, folder: Path, deadline: float, found: _Findings) -> None:
    own = folder / "recipe.yaml"
    files.write_text(own, render_recipe(recipe))
    batch = recipe.batch_size * recipe.gradient_accumulation_steps
    arguments = [str(own), str(max(SAMPLE_ROWS, batch)), str(folder)]
    trial = ask("ragcun_cli.preflight.trial_process", arguments, folder / "trial.log", deadline)
    found.trial = trial
    _judge_trial(recipe, trial, found)
    found.part = KILLED
    killed = _train_until_killed(recipe, trial, folder, deadline)
    found.add(KILLED, OK, f"{shown_bytes(killed.bytes)} written in {killed.seconds:.1f} s, at step {killed.checkpoint}")
    found.part = RESUMED
    _resume(killed, folder, deadline, found)
    found.part = SCORED
    _score(killed, folder, deadline, found)


def _judge_trial(recipe: Recipe, trial: dict[str, Any], found: _Findings) -> None:
    chunk = "is processed at once" if trial["chunk"] is None else f"is processed {trial['chunk']} tokens at a time"
    longest = f"a batch of the longest rows, {trial['longest_tokens']} tokens, {chunk} ({trial['chunk_explained']})"
    passes = "the encoder is frozen and stores no activations" if recipe.freeze_base else longest
    found.add("memory", OK, f"{passes}; peak {shown_bytes(trial['peak_bytes'])}")
    before, after = trial["losses"]
    sampled = (
        f" (sampled: {trial['batch']} of {recipe.batch_size} triples)" if trial["batch"] < recipe.batch_size else ""
    )
    seen = f"loss of one batch {before:.4g} -> {after:.4g}, {trial['seconds']:.3g} s per step{sampled}"
    if not (math.isfinite(before) and math.isfinite(after)):
        cure = "Set mixed_precision: no; lower the learning rates or the lambdas."
        found.add(TRIAL, FAILED, seen, cure)
    elif after >= before and before != 0:
        found.add(TRIAL, FAILED, f"{seen}: the loss does not fall", "Lower the learning rates.")
    else:
        found.add(TRIAL, OK, seen)


@dataclass(frozen=True)
class _Killed:
    """A killed training. recipe: its file. checkpoint: the step it can resume from; losses: by step, as far as the
    training got. bytes, seconds: size of the checkpoint and time to write it.
    """

    recipe: Path
    run: Path
    checkpoint: int
    losses: dict[int, float]
    bytes: int
    seconds: float


def _train_until_killed(recipe: Recipe, trial: dict[str, Any], folder: Path, deadline: float) -> _Killed:
    rows = sum(1 for _ in (folder / TRAINING).open(encoding="utf-8"))
    for steps in STEPS:
        if steps == STEPS[0] and trial["seconds"] < FAST_STEP:
            continue
        run = folder / f"run-{steps}"
        few = _short(recipe, trial["batch"], rows, steps, run, folder)
        file = folder / f"short-{steps}.yaml"
        files.write_text(file, render_recipe(few))
        with Answerer(
            ["-m", "ragcun_cli", "train", "--recipe", str(file), "--json"], *_surroundings(folder, deadline)
        ) as child:
            seen = _watch(child, run)
            child.kill()
        if seen is not None:
            return _Killed(file, run, *seen)
    raise EnvironmentUnfit(
        f"the training of {STEPS[-1]} steps ended before it could be killed", "Its batches are tiny: is that intended?"
    )


def _watch(child: Answerer, run: Path) -> tuple[int, dict[int, float], int, float] | None:
    """Wait for a complete checkpoint and a step after it. Return None if the training ends first.

    Raises:
        RagcunError: if it fails.
    """
    from ragcun_cli.train.disk import folder_bytes
    from ragcun_cli.train.run_folder import checkpoints_in

    logged: dict[int, float] = {}  # when each step was seen
    written = 0.0
    while child.is_alive():
        losses = _losses(run)
        now = time.monotonic()
        for step in losses:
            logged.setdefault(step, now)
        kept = checkpoints_in(run / "checkpoints")
        if not kept:
            continue
        written = written or now
        step = int(kept[0].name.rpartition("-")[2])
        if max(losses, default=0) > step:
            return step, losses, folder_bytes(kept[0]), written - logged.get(step, written)
    if child.failed():
        raise child.error()
    return None


def _losses(run: Path) -> dict[int, float]:
    """Return the losses by step, from the complete lines of metrics.jsonl."""
    records = whole_records(run / METRICS)
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def _resume(killed: _Killed, folder: Path, deadline: float, found: _Findings) -> None:
    command = ["-m", "ragcun_cli", "train", "--recipe", str(killed.recipe), "--resume", "--json"]
    with Answerer(command, *_surroundings(folder, deadline)) as child:
        child.result()
    again = _losses(killed.run)
    common = sorted(step for step in killed.losses if step > killed.checkpoint and step in again)
    if not common:
        raise EnvironmentUnfit(
            f"--resume repeated no step after step {killed.checkpoint}", "Try again: the machine may have been busy."
        )
    differences = [abs(again[step] - killed.losses[step]) for step in common]
    of_gpu = found.trial is not None and found.trial["on_gpu"]
    allowed = GPU_TOLERANCE * abs(killed.losses[common[0]]) if of_gpu else 0.0
    steps = f"step {common[0]}" if len(common) == 1 else f"steps {common[0]} to {common[-1]}"
    if not max(differences) <= allowed:  # also fails if one is not a number
        seen = f"{steps}: the loss differs by {max(differences):.3g} from the one before the kill"
        found.add(RESUMED, FAILED, seen, "A run interrupted here would not resume exactly as it was.")
        return
    same = f"within {max(differences):.1g}" if max(differences) else "to the last bit"
    found.add(
        RESUMED,
        OK,
        f"killed after step {max(killed.losses)}, resumed at step {killed.checkpoint}; {steps}: the same loss, {same}",
    )


def _score(killed: _Killed, folder: Path, deadline: float, found: _Findings) -> None:
    started = time.monotonic()
    command = ["-m", "ragcun_cli", "eval", "beir", "--model", str(killed.run), "--datasets", str(folder / COLLECTION)]
    command += ["--results", str(folder / "results"), "--json"]
    with Answerer(command, *_surroundings(folder, deadline)) as child:
        results = child.result()
    first = (results["results"] if isinstance(results, dict) else results)[0]
    score = first["metrics"]["ndcg@10"]
    if not math.isfinite(score):
        found.add(SCORED, FAILED, f"nDCG@10 is {score}", "The model's embeddings are not numbers.")
        return
    found.add(SCORED, OK, f"{first['dataset']['passages']} passages scored in {time.monotonic() - started:.0f} s")


def _short(recipe: Recipe, batch: int, rows: int, steps: int, run: Path, folder: Path) -> Recipe:
    """Return the recipe for the sample, with a checkpoint halfway; everything else is unchanged."""
    parts = recipe.gradient_accumulation_steps if batch == recipe.batch_size else 1
    of_epoch = max(1, rows // (batch * parts))
    data = recipe.data.model_copy(update={"train": str(folder / TRAINING), "dev": None, "max_bad_rows": 0})
    changes: dict[str, Any] = {
        "batch_size": batch,
        "gradient_accumulation_steps": parts,
        "epochs": -(-steps // of_epoch),
        "max_steps": steps,
        "warmup_steps": min(recipe.warmup_steps, 1),
        "log_every": 1,
        "save_every": steps // 2,
        "save_every_minutes": None,
        "eval_every": None,
        "early_stopping": None,
        "backup": None,
        "trackers": [],
        "seeds": None,
        "output_dir": str(run),
        "data": data,
    }
    return recipe.model_copy(update=changes)


def _surroundings(folder: Path, deadline: float) -> tuple[Path, float, dict[str, str]]:
    """Return the log, deadline and environment of a child."""
    log = folder / f"{len(list(folder.glob('*.log')))}.log"
    return log, deadline, {"RAGCUN_CACHE": str(folder / "cache")}
