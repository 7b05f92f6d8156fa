"""`ragcun data`: get training and test data, check it, mine hard negatives."""

from __future__ import annotations

import typer

from ragcun_cli.commands.data.checking import check
from ragcun_cli.commands.data.fetching import download, import_licensed, list_sources
from ragcun_cli.commands.data.mining import mine

app = typer.Typer(no_args_is_help=True, help="Download and check training and test data, and mine hard negatives.")
app.command("list")(list_sources)
app.command()(download)
app.command()(check)
app.command()(mine)
app.command("import")(import_licensed)
