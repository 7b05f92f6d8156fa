"""`ragcun data mine`: hard negatives by exact search."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from ragcun_cli.commands.choices import Pick, listed
from ragcun_cli.commands.data.options import DATA_DIR, JSON, require_new_triples


def mine(
    collection: str = typer.Argument(..., help="A collection in BEIR's layout: folder, zip or name in --data-dir."),
    output: Path = typer.Option(..., "--output", "-o", help="The file of triples to write, ending in .jsonl."),
    model: str | None = typer.Option(
        None, "--model", "-m", help="Any encoder, as `ragcun eval beir` takes them; needed unless --pick corpus."
    ),
    split: str = typer.Option("train", "--split", help="The judgements whose queries get negatives."),
    data_dir: Path = DATA_DIR,
    negatives: int = typer.Option(1, "--negatives", "-n", min=1, max=1000, help="Hard negatives for each positive."),
    ranks: str | None = typer.Option(
        None,
        "--ranks",
        metavar="FIRST-LAST",
        help="Ranks to take them from, counted without known positives; 1-100 by default.",
    ),
    margin: float | None = typer.Option(
        None,
        "--margin",
        min=-1,
        help="A negative must be farther than the positive by this share of its distance; 0: no nearer. Leaves out "
        "passages that are probably relevant too. By default any distance will do.",
    ),
    pick: Pick = typer.Option(
        "hardest",
        "--pick",
        help="hardest: the nearest of the ranks; sample: at random from them; corpus: at random from all passages, "
        "without any model.",
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Random seed for --pick sample and corpus."),
    max_length: int | None = typer.Option(None, "--max-length", min=2, help="Tokens of a text, if not the model's."),
    memory: str = typer.Option("1GiB", "--memory", help="What the search may take, besides the model."),
    processes: int | None = typer.Option(
        None, "--processes", min=1, help="Processes that encode and search; one for each GPU, or one, by default."
    ),
    exclude: list[str] = typer.Option(
        [],
        "--exclude",
        help="Collections whose queries and answers must not be in the triples: dev and test sets, comma-separated.",
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the output file if it is there."),
    json_output: bool = JSON,
) -> None:
    """Find hard negatives for the queries of a collection, by exact search with any encoder.

    Known positives, passages with their text, and the query itself are never taken. Embeddings are kept as by `eval
    beir`, searched parts until the file is written: the same command goes on after an interruption.
    Example: ragcun data mine scifact -m embedded:all-MiniLM-L6-v2 --ranks 10-100 --margin 0.05 -o mined.jsonl
    """
    import dataclasses

    from ragcun_cli.console import note, print_json

    require_new_triples(output, overwrite)
    from ragcun_cli.data.collection import read_collection
    from ragcun_cli.data.exclusion import read_excluded
    from ragcun_cli.data.sources import named_collection
    from ragcun_cli.model.sources import require_model, require_place
    from ragcun_cli.quantities import parse_bytes

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
        pairs = f"{mined.none} pairs got no negative and stay as pairs" if mined.none else ""
        note(f"{'; '.join(filter(None, (fewer, pairs)))} (--ranks, --margin).")
    if mined.without_text:
        note(f"{mined.without_text} relevant passages are empty and make no triple.")
    if mined.nearer_left_out:
        note(f"--margin excluded {mined.nearer_left_out:,} candidates.")
    if names:
        note(f"--exclude removed {mined.excluded} pairs ({', '.join(names)}).")
    note(f"Next: ragcun train --recipe isotropy --set data.train={output} --set data.dev=null")


def _ranks(negatives: int, ranks: str | None, margin: float | None, pick: Pick, model: str | None) -> tuple[int, int]:
    """First and last rank to take negatives from.

    Raises:
        UsageError: if the options contradict each other.
    """
    from ragcun_cli.errors import UsageError

    if pick == "corpus" and (ranks is not None or margin is not None):
        raise UsageError("--pick corpus draws from all passages, so --ranks and --margin do not apply", "Drop them.")
    ranks = ranks or "1-100"
    match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", ranks)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last:
        raise UsageError(f"--ranks {ranks}: expected FIRST-LAST, such as 10-100", "The nearest passage has rank 1.")
    if last - first + 1 < negatives and pick != "corpus":
        raise UsageError(f"--ranks {ranks}: these are fewer than --negatives {negatives}", "Give a wider range.")
    if model is None and pick != "corpus":
        raise UsageError("--model: which encoder?", "Such as -m embedded:all-MiniLM-L6-v2; --pick corpus needs none.")
    return first, last
