"""`ragcun data`: training and test data, from their owners to hard negatives."""

from __future__ import annotations

import typer

from ragcun_cli.commands.data.checking import check
from ragcun_cli.commands.data.fetching import download, import_licensed, list_sources
from ragcun_cli.commands.data.mining import mine

app = typer.Typer(no_args_is_help=True, help="Bring training and test data here, look at them, mine hard negatives.")
app.command("list")(list_sources)
app.command()(download)
app.command()(check)
app.command()(mine)
app.command("import")(import_licensed)
