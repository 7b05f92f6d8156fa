"""`ragcun train`: train one or several arms from recipes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ragcun_cli.commands import completion
from ragcun_cli.commands.estimates import DOLLARS
from ragcun_cli.console import LiveTable, note, print_document, print_json
from ragcun_cli.errors import ExitCode, Interrupted, UsageError
from ragcun_cli.imports import collector_at_rest
from ragcun_cli.quantities import parse_duration

if TYPE_CHECKING:
    from ragcun_cli.recipe.schema import Recipe
    from ragcun_cli.runs.status import ArmSummary
    from ragcun_cli.train.launch import Placement
    from ragcun_cli.train.multi_run import ScheduledRun


def train(
    recipes: list[str] = typer.Option(
        ...,
        "--recipe",
        "-r",
        help="A recipe file, or the name of a shipped recipe; may be repeated.",
        autocompletion=completion.recipes,
    ),
    overrides: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="Change a value of every recipe given; may be given several times."
    ),
    seeds: str | None = typer.Option(
        None, "--seeds", metavar="N,N,…", help="One run for each of these seeds, in <output_dir>-seed<N>."
    ),
    max_steps: int | None = typer.Option(
        None, "--max-steps", min=1, help="Stop after this many optimiser steps; the schedule is fitted to them."
    ),
    resume: bool = typer.Option(
        False,
        "--resume",
        help="Continue the run in the output folder or the recipe's backup; if there is none, start it.",
    ),
    processes: int | None = typer.Option(
        None, "--processes", min=1, help="Processes that share one training run (default: one per GPU, else one)."
    ),
    nodes: str = typer.Option(
        "1", "--nodes", metavar="N|MIN:MAX", help="Machines that share one training run; run the same command on each."
    ),
    node_rank: int | None = typer.Option(
        None, "--node-rank", metavar="R", help="This machine's number; 0 for the machine named by --master."
    ),
    master: str | None = typer.Option(
        None, "--master", metavar="HOST:PORT", help="Machine 0 and a free port on it, for a fixed group of machines."
    ),
    rendezvous: str | None = typer.Option(
        None,
        "--rendezvous",
        metavar="HOST:PORT",
        help="Meeting point for machines without numbers, which regroup there if one is lost.",
    ),
    max_time: str | None = typer.Option(
        None,
        "--max-time",
        metavar="TIME",
        help="Save and stop this long after the command started, such as 11h30m; exit code 75.",
    ),
    max_bad_rows: int | None = typer.Option(
        None,
        "--max-bad-rows",
        min=0,
        help="Skip up to this many broken training rows; more are an error (default: 0).",
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Discard the run in the output folder and start again."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Print the resolved plan and an estimate from a few timed steps, then stop."
    ),
    dollars_per_hour: float | None = DOLLARS,
    json_output: bool = typer.Option(False, "--json", help="Print the plan or the summary as JSON."),
) -> None:
    """Train one arm of the experiment, or several.

    Writes best_model/ (by nDCG@10 on the dev set), final_model/, checkpoints and metrics.jsonl into the
    recipe's output_dir. Several runs run in sequence, or one on each GPU; each run's output goes to
    <output_dir>.log, and a failure does not stop the others.

    On Ctrl-C, SIGTERM, a spot notice or --max-time, the run is saved at the next step and exits with code 75. The same
    command with --resume continues it.

    Examples: ragcun train --recipe recipes/isotropy.yaml --set batch_size=32 --set data.train=my.jsonl  |
    ragcun train --recipe baseline --recipe isotropy --recipe frozen --seeds 0,1,2
    """
    from ragcun_cli.recipe.loading import load_recipe

    if max_steps is not None:
        overrides = [*overrides, f"max_steps={max_steps}"]
    if max_bad_rows is not None:
        overrides = [*overrides, f"data.max_bad_rows={max_bad_rows}"]
    deadline = None if max_time is None else time.time() + parse_duration(max_time, "--max-time")
    loaded = [load_recipe(name, overrides) for name in recipes]

    from ragcun_cli.runs.folder import RunFolder
    from ragcun_cli.train.run_folder import refuse_early
    from ragcun_cli.train.runs import finished_summary, one_per_seed, require_inputs

    chosen = parse_seeds(seeds) if seeds is not None else None
    expanded = [each for recipe in loaded for each in one_per_seed(recipe, chosen)]
    # Report errors and finished runs before torch is imported.
    for recipe in expanded:
        if not dry_run and nodes == "1":  # one of several machines may join an existing run
            refuse_early(RunFolder.of(recipe), recipe, resume, overwrite)
        if recipe.backup is None or not resume:
            require_inputs(recipe)
    if dry_run:
        _show_plans(expanded, processes, dollars_per_hour, json_output)
    elif len(expanded) == 1 and resume and nodes == "1" and (summary := finished_summary(expanded[0])) is not None:
        _say_finished(summary, json_output)
    elif len(expanded) == 1:
        with collector_at_rest():
            from ragcun_cli.train.hardware import count_gpus
            from ragcun_cli.train.launch import plan_placement

        placement = plan_placement(processes, nodes, node_rank, master, rendezvous, count_gpus(), overwrite)
        _train_one(expanded[0], placement, resume, overwrite, deadline, json_output)
    elif nodes != "1":
        raise UsageError(
            f"--nodes: machines share one training run, not {len(expanded)}", "Name one recipe and one seed."
        )
    else:
        _train_several(expanded, processes, resume, overwrite, deadline, json_output)


def parse_seeds(seeds: str) -> list[int]:
    """Parse the numbers of `--seeds`.

    Raises:
        UsageError: if one is not a valid seed or occurs twice.
    """
    try:
        numbers = [int(part) for part in seeds.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {seeds}: must be whole numbers, such as --seeds 0,1,2") from None
    if any(not 0 <= number < 2**31 for number in numbers) or len(set(numbers)) < len(numbers):
        raise UsageError(
            f"--seeds {seeds}: must be different numbers from 0 to {2**31 - 1}", "For example: --seeds 0,1,2"
        )
    return numbers


def _say_finished(summary: ArmSummary, json_output: bool) -> None:
    note(f"{summary.folder}: this run is already finished; nothing to do.")
    _say_summary(summary, json_output)


def _train_one(
    recipe: Recipe, placement: Placement, resume: bool, overwrite: bool, deadline: float | None, json_output: bool
) -> None:
    with collector_at_rest():
        from ragcun_cli.train.arm import train_arm
    from ragcun_cli.train.launch import launch
    from ragcun_cli.train.multi_run import end_with_parent

    end_with_parent()
    if placement.is_single:
        summary = train_arm(recipe, resume=resume, overwrite=overwrite, deadline=deadline)
    else:
        summary = launch(recipe, placement, resume=resume, overwrite=overwrite, deadline=deadline)
    if placement.node_rank:
        note(f"The run's folder, {summary.folder}, is on the machine with --node-rank 0.")
    _say_summary(summary, json_output, here=not placement.node_rank)


def _say_summary(summary: ArmSummary, json_output: bool, here: bool = True) -> None:
    if json_output:
        print_json(dataclasses.asdict(summary))
        return
    if summary.best_dev_ndcg is not None:
        note(f"Best on dev: nDCG@10 {100 * summary.best_dev_ndcg:.2f} at step {summary.best_step}.")
    if here and summary.model:
        note(f"Model: {summary.model}\nNext:  ragcun eval beir --model {summary.folder} --datasets NAME")
    elif here:
        note(f"No model was kept (keep_models); the dev scores are in {summary.folder}/metrics.jsonl.")


def _train_several(
    recipes: Sequence[Recipe],
    processes: int | None,
    resume: bool,
    overwrite: bool,
    deadline: float | None,
    json_output: bool,
) -> None:
    from ragcun_cli.train.hardware import count_gpus
    from ragcun_cli.train.multi_run import RunsFailed, exit_code_of, plan_runs, train_all

    runs = plan_runs(recipes, resume, overwrite)
    gpus = count_gpus() if processes is None else 0
    options = [] if processes is None else ["--processes", str(processes)]
    side_by_side = f"up to {gpus} at a time, one on each GPU" if gpus > 1 else "one after another"
    note(f"{len(runs)} runs, {side_by_side}; each run's output goes to <output_dir>.log.")
    with LiveTable(RUN_COLUMNS) as table:
        try:
            train_all(runs, gpus, lambda: table.show([_row(run) for run in runs]), options, deadline)
        finally:
            table.show([_row(run) for run in runs])
    if json_output:
        print_json([_run_entry(run) for run in runs])
        raise typer.Exit(exit_code_of(runs))
    if exit_code_of(runs) == ExitCode.INTERRUPTED:
        raise Interrupted("stopped before all runs were done", "Run the same command with --resume to continue.")
    if exit_code_of(runs):
        raise RunsFailed(runs)
    note("Next:  ragcun eval beir " + " ".join(f"--model {run.recipe.output_dir}" for run in runs) + " --datasets NAME")


WORTH_A_MACHINE = 3600  # seconds; shorter runs are not worth renting a machine
RUN_COLUMNS = ("run", "state", "step", "loss", "dev nDCG@10", "triples/s")


def _row(run: ScheduledRun) -> list[str]:
    from ragcun_cli.train.multi_run import last_figures

    state = run.state()
    figures = last_figures(run) if state not in ("waiting",) else {}
    step = f"{figures['step']:.0f}/{figures['total_steps']:.0f}" if "total_steps" in figures else ""
    loss = f"{figures['loss']:.3f}" if "loss" in figures else ""
    dev = f"{100 * figures['best_score']:.2f}" if "best_score" in figures else ""
    speed = f"{figures['triples_per_second']:.1f}" if "triples_per_second" in figures else ""
    return [run.label, state, step, loss, dev, speed]


def _run_entry(run: ScheduledRun) -> dict[str, Any]:
    from ragcun_cli.train.multi_run import last_error, last_figures

    figures = last_figures(run)
    return {
        "name": run.recipe.name,
        "seed": run.recipe.seed,
        "folder": run.recipe.output_dir,
        "log": str(run.log),
        "state": run.state(),
        "exit_code": run.exit_code,
        "error": last_error(run) if run.exit_code else None,
        "steps": figures.get("step"),
        "best_step": figures.get("best_step"),
        "best_dev_ndcg": figures.get("best_score"),
    }


def _show_plans(recipes: Sequence[Recipe], processes: int | None, dollars: float | None, json_output: bool) -> None:
    from ragcun_cli.aws.estimates import by_instance
    from ragcun_cli.commands.estimates import estimate_json, known_json, print_estimates, print_known
    from ragcun_cli.recipe.trial_figures import Trial, estimate_of_trial
    from ragcun_cli.train.arm import plan_arm
    from ragcun_cli.train.hardware import count_gpus
    from ragcun_cli.train.runs import require_distinct_folders

    require_distinct_folders(recipes)
    plans: list[dict[str, Any]] = []
    trials: dict[str, dict[str, Any]] = {}  # all seeds of a recipe share one
    for recipe in recipes:
        plans.append(plan_arm(recipe, trials.get(recipe.name)))
        trials.setdefault(recipe.name, plans[-1]["trial"])
    # A single run uses all GPUs; several runs use one each.
    together = (processes or max(count_gpus(), 1)) if len(recipes) == 1 or processes else 1
    estimates = [
        estimate_of_trial(recipe, Trial(**plan["trial"]), together) for recipe, plan in zip(recipes, plans, strict=True)
    ]
    known = by_instance(
        recipes, {recipe.name: plan["trial"]["triples"] for recipe, plan in zip(recipes, plans, strict=True)}
    )
    if json_output:
        for recipe, plan, estimate in zip(recipes, plans, estimates, strict=True):
            plan["estimate"] = {"here": estimate_json(estimate, dollars), "calculated": known_json(known, recipe.name)}
        print_json(plans[0] if len(plans) == 1 else plans)
        return
    for plan in {plan["recipe"]["name"]: plan for plan in reversed(plans)}.values():  # once for all seeds
        _print_plan(plan)
    labels = [Path(recipe.output_dir).name for recipe in recipes]
    print_estimates(dict(zip(labels, estimates, strict=True)), dollars)
    if any(each.seconds is None or each.seconds > WORTH_A_MACHINE for each in estimates):
        print_known(list({recipe.name: recipe for recipe in recipes}.values()), known)


def _print_plan(plan: dict[str, Any]) -> None:
    from ragcun_cli.recipe.rendering import render_recipe
    from ragcun_cli.recipe.schema import Recipe
    from ragcun_cli.results.layout import scored_on
    from ragcun_cli.train.plan import TrainingPlan, what_is_trained_on

    counts, model, dev = plan["plan"], plan["model"], plan["dev"]
    recipe, training_plan = Recipe.model_validate(plan["recipe"]), TrainingPlan(**counts)
    per_step = recipe.batch_size * recipe.gradient_accumulation_steps
    lines = {
        "data": f"{counts['triples']} triples, {counts['hard_negatives']} with a hard negative, "
        f"{counts['texts']} distinct texts"
        + (f"; {counts['broken_rows_left_out']} broken rows left out" if counts["broken_rows_left_out"] else "")
        + (f"; {counts['triples_excluded']} triples excluded" if counts["triples_excluded"] else ""),
        "dev": f"{scored_on(dev['name'], dev['split'], dev['queries'])}, {dev['passages']} passages"
        if dev
        else "none: no best_model",
        "steps": f"{counts['total_steps']} of {per_step} triples ({counts['steps_per_epoch']} per epoch), "
        f"warm-up {counts['warmup_steps']}"
        + (f" (not {recipe.warmup_steps}: the run is short)" if counts["warmup_steps"] < recipe.warmup_steps else ""),
        "trained on": "; ".join(what_is_trained_on(training_plan, recipe)) or "every triple",
        "negatives per query": f"{counts['negatives_per_query']:.4g} (fewest {counts['fewest_negatives']})",
        "precision": counts["precision_explained"],
        "parameters": f"{model['trainable_parameters']:,} of {model['parameters']:,} trained "
        f"({model['head_parameters']:,} in the head)",
        "initial weights": f"sha256 {model['initial_weights_sha256'][:16]} (the same for all arms with this seed)",
        "output": plan["refused"] or recipe.output_dir,
    }
    print_document(render_recipe(recipe))
    for name, value in lines.items():
        print_document(f"# {name:<20} {value}")
