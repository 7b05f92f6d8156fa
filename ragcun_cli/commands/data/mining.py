"""`ragcun data mine`: find hard negatives by exact search."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from ragcun_cli.commands.choices import Pick, listed
from ragcun_cli.commands.data.options import DATA_DIR, JSON, require_new_triples
from ragcun_cli.console import note, print_json
from ragcun_cli.errors import UsageError
from ragcun_cli.quantities import parse_bytes


def mine(
    collection: str = typer.Argument(..., help="A collection in BEIR's layout: folder, zip or name in --data-dir."),
    output: Path = typer.Option(..., "--output", "-o", help="File of triples to write; must end in .jsonl."),
    model: str | None = typer.Option(
        None, "--model", "-m", help="Any encoder that `ragcun eval beir` accepts; required unless --pick corpus."
    ),
    split: str = typer.Option("train", "--split", help="Split of judgements whose queries get negatives."),
    data_dir: Path = DATA_DIR,
    negatives: int = typer.Option(1, "--negatives", "-n", min=1, max=1000, help="Hard negatives for each positive."),
    ranks: str | None = typer.Option(
        None,
        "--ranks",
        metavar="FIRST-LAST",
        help="Ranks to take negatives from, not counting known positives (default: 1-100).",
    ),
    margin: float | None = typer.Option(
        None,
        "--margin",
        min=-1,
        help="A negative must be farther away than the positive by this share of its distance; 0: no nearer. Skips "
        "passages that are probably also relevant. By default any distance is allowed.",
    ),
    pick: Pick = typer.Option(
        "hardest",
        "--pick",
        help="hardest: the nearest in the ranks; sample: random ones from the ranks; corpus: random ones from all "
        "passages, without a model.",
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Random seed for --pick sample and corpus."),
    max_length: int | None = typer.Option(None, "--max-length", min=2, help="Tokens per text (default: the model's)."),
    memory: str = typer.Option("1GiB", "--memory", help="Memory for the search, in addition to the model."),
    processes: int | None = typer.Option(
        None, "--processes", min=1, help="Processes that encode and search (default: one per GPU, else one)."
    ),
    exclude: list[str] = typer.Option(
        [],
        "--exclude",
        help="Dev and test sets whose queries and answers must not be in the triples, comma-separated.",
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the output file if it exists."),
    json_output: bool = JSON,
) -> None:
    """Find hard negatives for the queries of a collection, by exact search with any encoder.

    Known positives, passages with the same text, and the query itself are never used. Embeddings are cached as in `eval
    beir`, and partial searches until the file is written: after an interruption, repeat the command to continue.
    Example: ragcun data mine scifact -m embedded:all-MiniLM-L6-v2 --ranks 10-100 --margin 0.05 -o mined.jsonl
    """
    import dataclasses

    require_new_triples(output, overwrite)
    from ragcun_cli.data.collection import read_collection
    from ragcun_cli.data.exclusion import read_excluded
    from ragcun_cli.data.sources import named_collection
    from ragcun_cli.model.sources import require_model, require_place

    first, last = _ranks(negatives, ranks, margin, pick, model)
    budget = parse_bytes(memory, "--memory")
    if model is not None:
        require_place(model)
    found = read_collection(named_collection(collection, data_dir), split)
    names = listed(exclude)
    excluded = read_excluded(names, data_dir, "--exclude")
    if model is not None:
        require_model(model)

    from ragcun_cli.evaluate.evaluator import EvaluationSettings, ModelToScore
    from ragcun_cli.evaluate.mining import Mining
    from ragcun_cli.evaluate.mining import mine as mine_negatives

    settings = EvaluationSettings(memory=budget, processes=processes)
    mining = Mining(negatives, first, last, margin, pick, seed)
    asked = None if model is None else ModelToScore(model, None, max_length)
    mined = mine_negatives(found, asked, settings, mining, output, excluded)
    if json_output:
        print_json({"output": str(output), **dataclasses.asdict(mined)})
        return
    if mined.short:
        fewer = (
            f"{mined.short - mined.none} pairs got fewer than {negatives} negatives" if mined.short > mined.none else ""
        )
        pairs = f"{mined.none} pairs got no negative and are written as pairs" if mined.none else ""
        note(f"{'; '.join(filter(None, (fewer, pairs)))} (--ranks, --margin).")
    if mined.without_text:
        note(f"{mined.without_text} relevant passages are empty and produce no triple.")
    if mined.nearer_left_out:
        note(f"--margin excluded {mined.nearer_left_out:,} candidates.")
    if names:
        note(f"--exclude removed {mined.excluded} pairs ({', '.join(names)}).")
    note(f"Next: ragcun train --recipe isotropy --set data.train={output} --set data.dev=null")


def _ranks(negatives: int, ranks: str | None, margin: float | None, pick: Pick, model: str | None) -> tuple[int, int]:
    """Return the first and last rank to take negatives from.

    Raises:
        UsageError: if the options contradict each other.
    """
    if pick == "corpus" and (ranks is not None or margin is not None):
        raise UsageError("--pick corpus draws from all passages, so --ranks and --margin do not apply", "Remove them.")
    ranks = ranks or "1-100"
    match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", ranks)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last:
        raise UsageError(f"--ranks {ranks}: expected FIRST-LAST, such as 10-100", "The nearest passage has rank 1.")
    if last - first + 1 < negatives and pick != "corpus":
        raise UsageError(f"--ranks {ranks}: fewer ranks than --negatives {negatives}", "Give a wider range.")
    if model is None and pick != "corpus":
        raise UsageError("--model is missing", "Give one, such as -m embedded:all-MiniLM-L6-v2, or use --pick corpus.")
    return first, last
