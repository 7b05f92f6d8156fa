"""`ragcun encode`: write embeddings of a file of texts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import typer

from ragcun_cli.commands import completion
from ragcun_cli.commands.choices import Precision
from ragcun_cli.console import note, print_json
from ragcun_cli.files import require_writable
from ragcun_cli.quantities import parse_bytes


def encode(
    source: Path = typer.Argument(
        ...,
        metavar="FILE",
        help=".txt (one text per line), .jsonl, .tsv, .csv or .parquet; all except Parquet also as .gz or .zst.",
    ),
    model: str = typer.Option(
        ...,
        "--model",
        "-m",
        help="A run folder, a model folder, a Hub id or embedded:all-MiniLM-L6-v2.",
        autocompletion=completion.models,
    ),
    out: Path = typer.Option(
        Path("embeddings.npy"),
        "--out",
        "-o",
        help="File to write: .npy (float32, one row per text) or .parquet (id, embedding).",
    ),
    column: str | None = typer.Option(
        None, "--column", help="Column with the texts (default: `text`, preceded by `title` if there is one)."
    ),
    max_length: int | None = typer.Option(None, "--max-length", min=2, help="Tokens per text (default: the model's)."),
    precision: Precision = typer.Option("float32", "--precision", help="Encoding precision: float32, bf16 or fp16."),
    cache_limit: str | None = typer.Option(
        None,
        "--cache-limit",
        help="Disk space for cached embeddings, such as 50GiB; the least recently used are deleted first.",
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the file if it exists."),
    json_output: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
) -> None:
    """Write the embeddings of a file's texts in the file's order: either all of them or nothing.

    They are not normalised: compare them by Euclidean distance. Embeddings are cached, as in `ragcun eval`:
    texts that either command has seen are not encoded again, and an interrupted command continues where it stopped.

    Example: ragcun encode corpus.jsonl --model checkpoints/isotropy --out corpus.npy
    """
    from ragcun_cli.data.cache import cache_folder
    from ragcun_cli.data.texts import read_texts
    from ragcun_cli.evaluate.embedding_file import encode_file, require_ending
    from ragcun_cli.evaluate.models import open_model
    from ragcun_cli.model.sources import require_model

    limit = None if cache_limit is None else parse_bytes(cache_limit, "--cache-limit")
    require_ending(out, overwrite)
    require_writable(out)
    next(read_texts(source, column), None)  # report a wrong file or column before a model is loaded
    require_model(model)
    opened = open_model(model, max_length, precision=precision)

    from ragcun_cli.evaluate.embedding import Embedder

    written = encode_file(Embedder(opened, cache_folder(), limit=limit), source, column, out)
    if json_output:
        print_json({**dataclasses.asdict(written), "model": opened.entry.identity})
        return
    if written.kept:
        note(f"{written.kept} of {written.texts} embeddings were already in the cache.")
    note(f"{out}: {written.texts} texts, {written.dimensions} dimensions. Compare them by Euclidean distance.")
