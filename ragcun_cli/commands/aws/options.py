"""Options that several commands of `ragcun aws` share, and what they are turned into."""

from __future__ import annotations

import typer

from ragcun_cli.commands import completion

RECIPES = typer.Option(
    [],
    "--recipe",
    "-r",
    help="What is trained; may be repeated. baseline, isotropy and frozen by default.",
    autocompletion=completion.recipes,
)
OVERRIDES = typer.Option([], "--set", metavar="KEY=VALUE", help="Change a value of every recipe; may be repeated.")
SEEDS = typer.Option(None, "--seeds", metavar="N,N,…", help="One training for each of these seeds.")
DATASETS = typer.Option(
    None,
    "--datasets",
    "-d",
    help="What is scored at the end, as for `ragcun eval beir`; public by default.",
    autocompletion=completion.datasets,
)
PRECISION = typer.Option("float32", "--precision", help="Of the evaluation: float32, bf16 or fp16.")
INSTANCE = typer.Option(
    ...,
    "--instance",
    "-i",
    help="Type of machine, such as g5.xlarge or p4d.24xlarge.",
    autocompletion=completion.instances,
)
REGION = typer.Option(
    [],
    "--region",
    help="Where; may be repeated, or A,B: they are tried in this order, and the first has the bucket. Your session's "
    "region, else us-east-1, by default.",
)
ON_DEMAND = typer.Option(False, "--on-demand", help="A machine that nobody takes away, at full price; spot by default.")
NODES = typer.Option(1, "--nodes", min=1, help="Machines that share one training, in one zone.")
RUN = typer.Option(None, "--run", help="Name of the run; made of the recipes' names by default.")
MAX_HOURS = typer.Option(
    24.0,
    "--max-hours",
    min=0.5,
    max=720,
    help="Hours of the whole run, over all its machines, after which they are ended.",
)
MAX_COST = typer.Option(
    None, "--max-cost", min=0.01, help="Dollars. If --max-hours could cost more, nothing is launched."
)
DEFAULT_IDLE_MINUTES = 30
IDLE = typer.Option(
    DEFAULT_IDLE_MINUTES, "--idle-minutes", min=1, help="Minutes of idle GPUs in training or evaluation that end a run."
)
DISK = typer.Option(
    None, "--disk", min=30, max=16384, help="GiB of each machine's disk; reckoned from the data by default."
)
BUCKET = typer.Option(None, "--bucket", help="A bucket of yours, which is there; by default one that ragcun makes.")
IMAGE = typer.Option(None, "--image", help="ami-…; AWS's newest Deep Learning Base image by default.")
EMAIL = typer.Option(None, "--email", help="Where AWS Budgets mails at 50, 80 and 100 % of the most it may cost.")
SPEED = typer.Option(
    None, "--triples-per-second", min=0.001, help="Measured speed of one training there, for a better estimate."
)
PROFILE = typer.Option(None, "--profile", help="Profile of your AWS configuration; AWS_PROFILE by default.")
CODE = typer.Option(None, "--code", help="The checkout whose code runs; the one of this command by default.")
ALLOW_CHANGES = typer.Option(False, "--allow-changes", help="Take files that differ from the commit as they are.")
YES = typer.Option(False, "--yes", "-y", help="Do not ask.")
JSON = typer.Option(False, "--json", help="Print as JSON.")
WHICH = typer.Argument(..., metavar="RUN", help="Name of the run.")
ONE_REGION = typer.Option(None, "--region", help="Where to ask first; your session's region by default.")
OWN_BUCKET = typer.Option(None, "--bucket", help="The run's bucket, if it is not one that ragcun made.")
