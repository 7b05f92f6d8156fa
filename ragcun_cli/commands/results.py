"""`ragcun results`: list, rename, remove and restore results."""

from __future__ import annotations

from pathlib import Path

import typer

from ragcun_cli.commands.choices import listed
from ragcun_cli.console import Column, note, plain, print_json, print_table, print_text
from ragcun_cli.quantities import counted

app = typer.Typer(
    no_args_is_help=True,
    help="List results, rename them, remove those you no longer need, and restore what was removed.",
)

RESULTS = typer.Option(Path("results"), "--results", help="Folder with the results.")
JSON = typer.Option(False, "--json", help="Print JSON.")
DIGITS_OF_TIME = "%Y-%m-%d %H:%M"


@app.command("list")
def list_results(results: Path = RESULTS, json_output: bool = JSON) -> None:
    """List every result, and whether its model has changed since it was scored.

    `changed`: its path now has other weights, config or tokenizer. `gone`: nothing is there. `unreadable`: the model
    there is incomplete.

    Example: ragcun results list
    """
    import dataclasses
    import time

    from ragcun_cli.report.managing import list_results as listed

    rows = listed(results)
    if json_output:
        print_json([dataclasses.asdict(each) for each in rows])
        return
    columns = [Column("model"), Column("dataset"), Column("split"), Column("queries", numeric=True)]
    columns += [Column("nDCG@10", numeric=True), Column("scored"), Column("model is")]
    print_table(
        columns,
        [
            [
                plain(each.model),
                plain(each.dataset),
                plain(each.split),
                "–" if each.queries is None else str(each.queries),
                "–" if each.ndcg is None else f"{each.ndcg:.4f}",
                time.strftime(DIGITS_OF_TIME, time.localtime(each.scored)),
                each.state,
            ]
            for each in rows
        ],
    )


@app.command()
def remove(
    models: list[str] = typer.Argument(..., help="Model names, as shown by `ragcun results list`."),
    datasets: str = typer.Option("", "--datasets", "-d", help="Only these datasets, comma-separated."),
    yes: bool = typer.Option(False, "--yes", help="Move the results; without this, only show what would be moved."),
    results: Path = RESULTS,
    json_output: bool = JSON,
) -> None:
    """Remove results: they are moved to RESULTS/.trash/TIME, and `results restore` moves them back.

    Example: ragcun results remove old-run --datasets scifact --yes
    """
    from ragcun_cli.report.managing import plan_removal
    from ragcun_cli.report.managing import remove as move

    names = listed(datasets)
    removal = plan_removal(results, models, names)
    if yes:
        move(removal)
    if json_output:
        moves = [{"from": str(source), "to": str(target)} for source, target in removal.moves]
        print_json({"moved": yes, "results": removal.cells, "trash": str(removal.trash), "moves": moves})
        return
    print_text("\n".join(str(source) for source, _ in removal.moves))
    what = counted(removal.cells, "result")
    if yes:
        note(f"{what} moved to {removal.trash}/. To undo: ragcun results restore {removal.trash}")
    else:
        note(f"{what} would be moved to {results}/.trash/. Nothing was moved: add --yes.")


@app.command()
def restore(
    trash: Path = typer.Argument(..., help="The folder printed by `ragcun results remove`."),
    json_output: bool = JSON,
) -> None:
    """Move back what `results remove` removed.

    Example: ragcun results restore results/.trash/20261127-101500
    """
    from ragcun_cli.report.managing import restore as move_back

    moves = move_back(trash)
    if json_output:
        print_json({"moves": [{"from": str(source), "to": str(target)} for source, target in moves]})
        return
    note(f"Moved back to {trash.parent.parent}/.")


@app.command()
def rename(
    old: str = typer.Argument(..., help="The model's name, as shown by `ragcun results list`."),
    new: str = typer.Argument(..., help="The new name for tables."),
    results: Path = RESULTS,
    json_output: bool = JSON,
) -> None:
    """Rename a model's results in all of their files.

    Example: ragcun results rename isotropy isotropy-lambda1
    """
    from ragcun_cli.report.managing import rename as give

    folder = give(results, old, new)
    if json_output:
        print_json({"folder": str(folder)})
        return
    note(f"Renamed {old} to {new}: {folder}/")
