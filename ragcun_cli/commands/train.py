"""`ragcun train`: one arm, from its recipe."""

from __future__ import annotations

import dataclasses
from typing import Any

import typer

EXAMPLES = "Example: ragcun train --recipe recipes/isotropy.yaml --set batch_size=32 --set data.train=my.jsonl"


def train(
    recipe: str = typer.Option(..., "--recipe", "-r", help="A recipe file, or the name of a shipped recipe."),
    overrides: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="Change a value of the recipe; may be given several times."
    ),
    max_steps: int | None = typer.Option(
        None, "--max-steps", min=1, help="Train only so many optimiser steps; the schedule is fitted to them."
    ),
    resume: bool = typer.Option(False, "--resume", help="Continue the run in the recipe's output folder."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Drop the run that is in the output folder."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the resolved plan and stop."),
    json_output: bool = typer.Option(False, "--json", help="Print the plan or the summary as JSON."),
) -> None:
    """Train one arm of the experiment.

    Writes best_model/ (by nDCG@10 on the dev set), final_model/, checkpoints and metrics.jsonl into the
    recipe's output_dir.
    """
    from ragcun_cli.console import note, print_json
    from ragcun_cli.recipe.loading import load_recipe

    if max_steps is not None:
        overrides = [*overrides, f"max_steps={max_steps}"]
    resolved = load_recipe(recipe, overrides)

    from ragcun_cli.train.arm import plan_arm, train_arm

    if dry_run:
        plan = plan_arm(resolved)
        if json_output:
            print_json(plan)
        else:
            _print_plan(plan)
        return
    summary = train_arm(resolved, resume=resume, overwrite=overwrite)
    if json_output:
        print_json(dataclasses.asdict(summary))
        return
    if summary.best_dev_ndcg is not None:
        note(f"Best on dev: nDCG@10 {100 * summary.best_dev_ndcg:.2f} at step {summary.best_step}.")
    note(f"Model: {summary.model}\nNext:  ragcun eval beir --model {summary.folder} --datasets NAME")


def _print_plan(plan: dict[str, Any]) -> None:
    from ragcun_cli.console import print_text
    from ragcun_cli.recipe.rendering import render_recipe
    from ragcun_cli.recipe.schema import Recipe

    counts, model, dev = plan["plan"], plan["model"], plan["dev"]
    recipe = Recipe.model_validate(plan["recipe"])
    per_step = recipe.batch_size * recipe.gradient_accumulation_steps
    lines = {
        "data": f"{counts['triples']} triples, {counts['hard_negatives']} with a hard negative",
        "dev": f"{dev['name']}: {dev['queries']} queries, {dev['passages']} passages" if dev else "none: no best_model",
        "steps": f"{counts['total_steps']} of {per_step} triples ({counts['steps_per_epoch']} an epoch), "
        f"warm-up {counts['warmup_steps']}",
        "negatives per query": str(counts["negatives_per_query"]),
        "precision": counts["precision_explained"],
        "parameters": f"{model['trainable_parameters']:,} of {model['parameters']:,} train "
        f"({model['head_parameters']:,} in the head)",
        "initial weights": f"sha256 {model['initial_weights_sha256'][:16]} (the same for all arms of one seed)",
        "output": plan["refused"] or recipe.output_dir,
    }
    print_text(render_recipe(recipe))
    for name, value in lines.items():
        print_text(f"# {name:<20} {value}")
