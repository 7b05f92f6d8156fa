"""`ragcun eval`: score models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

app = typer.Typer(no_args_is_help=True, help="Score models on retrieval collections.")


@app.callback()
def _group() -> None:
    """Keep `eval` a group while it has one command."""


@app.command()
def beir(
    models: list[str] = typer.Option(
        ..., "--model", "-m", help="A run folder, a model folder, a hub id or embedded:all-MiniLM-L6-v2."
    ),
    datasets: list[str] = typer.Option(
        ...,
        "--datasets",
        "-d",
        help="Folders or zips in BEIR's layout, or names in --data-dir; comma-separated.",
    ),
    data_dir: Path = typer.Option(Path("data"), "--data-dir", help="Where named datasets lie."),
    results: Path = typer.Option(Path("results"), "--results", help="Where results are written."),
    split: str | None = typer.Option(None, "--split", help="Which qrels; `test`, and `dev` for msmarco, by default."),
    name: str | None = typer.Option(None, "--name", help="What one model is called in results."),
    max_length: int | None = typer.Option(None, "--max-length", min=2, help="Tokens of a text, if not the model's."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace results of another model of the same name."),
    json_output: bool = typer.Option(False, "--json", help="Print the results as JSON."),
) -> None:
    """Score models by exact Euclidean search: nDCG@10, Recall@100, MAP, MRR (trec_eval) and IsoScore.

    A run folder means its best model. An encoder that ragcun did not train is scored untouched, as its
    authors use it. Example: ragcun eval beir --model checkpoints/isotropy --datasets scifact,nfcorpus
    """
    from ragcun_cli.console import print_json
    from ragcun_cli.errors import UsageError

    if name is not None and len(models) > 1:
        raise UsageError("--name: names one model, and several are given")
    if name is not None and (not name.strip() or name.startswith(".") or "/" in name or "\\" in name):
        raise UsageError(f"--name {name}: this is no name for a folder of results", "Use letters, digits, - and _.")
    names = [part.strip() for group in datasets for part in group.split(",") if part.strip()]
    if not names:
        raise UsageError("--datasets: no dataset is named")

    from ragcun_cli.evaluate.beir import ModelToScore, evaluate_models, read_datasets

    collections = read_datasets(names, data_dir, split)
    to_score = [ModelToScore(model, name, max_length) for model in models]
    written = evaluate_models(to_score, collections, results, overwrite)
    if json_output:
        print_json(written)
    else:
        _print_results(written, results)


def _print_results(written: list[dict[str, Any]], results: Path) -> None:
    from ragcun_cli.console import Column, note, plain, print_table

    headers = ["nDCG@10", "Recall@100", "MAP", "MRR", "IsoScore"]
    columns = [Column("model"), Column("dataset"), *(Column(header, numeric=True) for header in headers)]
    rows = []
    for result in written:
        isotropy = result["isotropy"] or {}
        isoscore = isotropy.get("isoscore")
        figures = [f"{result['metrics'][key]:.4f}" for key in ("ndcg@10", "recall@100", "map", "mrr")]
        shown = "-" if isoscore is None else f"{isoscore:.3f}"
        rows.append([plain(result["model"]["name"]), plain(result["dataset"]["name"]), *figures, shown])
    print_table(columns, rows)
    note(f"Written to {results}/. Next: ragcun report table" + _results_flag(results))


def _results_flag(results: Path) -> str:
    return "" if results == Path("results") else f" --results {results}"
