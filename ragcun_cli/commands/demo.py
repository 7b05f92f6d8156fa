"""`ragcun demo`: run a small version of the whole experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ragcun_cli.console import note, print_document

if TYPE_CHECKING:
    from ragcun_cli.demo import DemoOutcome


def demo(
    folder: Path = typer.Option(
        Path("ragcun-demo"), "--folder", help="Folder for all output; an earlier demo in it is replaced."
    ),
    quick: bool = typer.Option(False, "--quick", help="Use a smaller collection: about a minute, noisier results."),
    json_output: bool = typer.Option(False, "--json", help="Print the table as JSON."),
) -> None:
    """Run the whole experiment on this machine: train baseline, isotropy and frozen arms, and score them in one table.

    A real encoder (all-MiniLM-L6-v2) trains on texts already on this machine: the docstrings of installed
    Python code. About two minutes on two cores. Example: ragcun demo --quick
    """
    from ragcun_cli.demo import run_demo
    from ragcun_cli.report.formats.plain import to_json

    outcome = run_demo(folder, quick)
    if json_output:
        print_document(to_json(outcome.table))
    else:
        _print_outcome(outcome, folder)


def _print_outcome(outcome: DemoOutcome, folder: Path) -> None:
    from ragcun_cli.commands.report_printing import print_result_table

    print_result_table(outcome.table)
    origin: list[dict[str, Any]] = outcome.collection.fingerprint["origin"]["code"]
    code = ", ".join(f"{each['name']} {each['version']}" for each in origin)
    note(
        f"""
One seed and one small collection made from {code}: enough to see every
part work, far too little to show that an arm is better.

collection   {outcome.collection.train.parent}/   (fingerprint.json records what it was made from)
runs         {folder / "checkpoints"}/   (recipe.yaml, metrics.jsonl, best_model/ in each)
results      {outcome.results}/   (scores, per-query scores and TREC runs)

Next
  ragcun report table --results {outcome.results} --format latex
  ragcun report claims --results {outcome.results}
  ragcun report page --results {outcome.results}      (needs matplotlib: pip install 'ragcun[figures]')
  ragcun recipe show demo-isotropy
  ragcun recipe copy demo-isotropy my-arm.yaml
  ragcun train --recipe my-arm.yaml --set lambda_isotropy=0.1"""
    )
