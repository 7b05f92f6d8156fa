"""Options and checks that several `ragcun data` commands share."""

from __future__ import annotations

from pathlib import Path

import typer

from ragcun_cli.errors import UsageError
from ragcun_cli.files import require_writable

DATA_DIR = typer.Option(Path("data"), "--data-dir", help="The data folder.")
JSON = typer.Option(False, "--json", help="Print as JSON.")


def require_new_triples(output: Path, overwrite: bool, flag: str = "--output") -> None:
    """Refuse an output file that exists or has another ending.

    Raises:
        UsageError: if the name does not end in .jsonl, or the file exists and must not be replaced.
        OSError: if the file cannot be written.
    """
    if output.suffix != ".jsonl":
        raise UsageError(f"{flag} {output}: triples are written as JSON Lines", f"Name it {output.stem}.jsonl.")
    if output.exists() and not overwrite:
        raise UsageError(f"{flag} {output}: this file already exists", "Give --overwrite to replace it.")
    require_writable(output)
