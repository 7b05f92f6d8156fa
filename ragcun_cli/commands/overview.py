"""`ragcun` alone: the path through an experiment, and where this folder stands on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path


def show_overview(json_output: bool) -> None:
    """What is done, what is next, and what else there is."""
    from ragcun_cli.console import Column, note, plain, print_json, print_table
    from ragcun_cli.standing import next_command, standing

    steps = standing(Path())
    if json_output:
        print_json({"steps": [dataclasses.asdict(step) for step in steps], "next": next_command(steps)})
        return
    rows = [
        ["[green]done[/]" if step.done else "", step.name, f"{plain(step.seen)}\n[dim]{plain(step.command)}[/]"]
        for step in steps
    ]
    print_table(
        [Column(""), Column("step"), Column("this folder", wraps=True)],
        rows,
        title="Does making embeddings isotropic make dense retrieval better?",
    )
    note(f"Next:  {next_command(steps)}")
    if any(step.done for step in steps):
        note("Help:  ragcun --help, and --help after every command")
        return
    note(
        "First: ragcun demo (two minutes: every step, small) and ragcun preflight (five: is this machine fit?)\n"
        "Help:  ragcun --help, and --help after every command"
    )
