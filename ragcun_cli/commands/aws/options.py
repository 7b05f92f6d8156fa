"""Define the options that several `ragcun aws` commands share."""

from __future__ import annotations

import typer

from ragcun_cli.commands import completion

RECIPES = typer.Option(
    [],
    "--recipe",
    "-r",
    help="A recipe to train; may be repeated. baseline, isotropy and frozen by default.",
    autocompletion=completion.recipes,
)
OVERRIDES = typer.Option([], "--set", metavar="KEY=VALUE", help="Change a value of every recipe; may be repeated.")
SEEDS = typer.Option(None, "--seeds", metavar="N,N,…", help="Train once with each of these seeds.")
DATASETS = typer.Option(
    None,
    "--datasets",
    "-d",
    help="Datasets to score at the end, as for `ragcun eval beir`; public by default.",
    autocompletion=completion.datasets,
)
PRECISION = typer.Option("float32", "--precision", help="Precision of the evaluation: float32, bf16 or fp16.")
INSTANCE = typer.Option(
    None,
    "--instance",
    "-i",
    help="Instance type, such as g5.xlarge or p4d.24xlarge. With --resume: may differ from before.",
    autocompletion=completion.instances,
)
REGION = typer.Option(
    [],
    "--region",
    help="Regions to try, in this order; may be repeated, or A,B. The first one has the bucket. Your session's "
    "region, else us-east-1.",
)
ON_DEMAND = typer.Option(False, "--on-demand", help="Not spot: AWS never takes it back, but at full price.")
NODES = typer.Option(1, "--nodes", min=1, help="How many machines share one training, in one zone.")
RUN = typer.Option(None, "--run", help="Name of the run; made from the recipes' names by default.")
MAX_HOURS = typer.Option(
    None,
    "--max-hours",
    min=0.5,
    max=720,
    help="Limit in hours for the whole run, over all its machines, after which they are ended; 24 by default.",
)
MAX_COST = typer.Option(
    None, "--max-cost", min=0.01, help="Limit in dollars. If --max-hours could cost more, nothing is launched."
)
IDLE = typer.Option(
    None, "--idle-minutes", min=1, help="Minutes that GPUs may idle in training or evaluation; 30 by default."
)
DISK = typer.Option(
    None, "--disk", min=30, max=16384, help="GiB of each machine's disk; calculated from the data by default."
)
BUCKET = typer.Option(None, "--bucket", help="An existing bucket of yours; by default ragcun makes one.")
IMAGE = typer.Option(None, "--image", help="Machine image (ami-…); AWS's newest Deep Learning Base image by default.")
EMAIL = typer.Option(None, "--email", help="Address that AWS Budgets mails at 50, 80 and 100 % of the maximum cost.")
SPEED = typer.Option(
    None, "--triples-per-second", min=0.001, help="Measured speed of one training on that type, for a better estimate."
)
SUBNETS = typer.Option(
    [],
    "--subnet",
    help="A subnet to start in (subnet-…), with a way out; may be repeated. By default those of the default VPC.",
)
SECURITY_GROUP = typer.Option(
    None, "--security-group", help="An existing security group of the subnets' VPC; by default ragcun makes one."
)
WAIT = typer.Option(
    None, "--wait", metavar="DURATION", help="Keep trying this long (6h, 90m) while AWS has no machine."
)
ACCEPT_RECORD = typer.Option(
    False,
    "--accept-record",
    help="Confirm the run's record in the bucket although it differs from this computer's copy.",
)
PROFILE = typer.Option(None, "--profile", help="Profile of your AWS configuration; AWS_PROFILE by default.")
CODE = typer.Option(None, "--code", help="The checkout whose code runs; this command's own by default.")
ALLOW_CHANGES = typer.Option(False, "--allow-changes", help="Include files that differ from the commit.")
YES = typer.Option(False, "--yes", "-y", help="Do not ask for confirmation.")
JSON = typer.Option(False, "--json", help="Print as JSON.")
WHICH = typer.Argument(..., metavar="RUN", help="Name of the run.")
ONE_REGION = typer.Option(None, "--region", help="Region to ask first; your session's by default.")
OWN_BUCKET = typer.Option(None, "--bucket", help="The run's bucket, if ragcun did not make it.")
