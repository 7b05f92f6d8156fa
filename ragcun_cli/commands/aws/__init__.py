"""`ragcun aws`: commands for a run on EC2, from its plan to its removal."""

from __future__ import annotations

import typer

from ragcun_cli.commands.aws.account import gc, policy
from ragcun_cli.commands.aws.launching import launch, plan
from ragcun_cli.commands.aws.running import fetch, logs, shell, status, terminate, watch
from ragcun_cli.commands.aws.staging import stage

app = typer.Typer(
    no_args_is_help=True,
    help="Run an experiment on EC2: see its cost, start it, watch it, fetch its results, leave nothing behind. "
    "AWS_SETUP.md takes you from no account to a running job.",
)
for command in (plan, stage, launch, status, logs, watch, shell, fetch, terminate, gc, policy):
    app.command()(command)
