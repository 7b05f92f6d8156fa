"""What several commands of `ragcun data` take, and refuse alike."""

from __future__ import annotations

from pathlib import Path

import typer

DATA_DIR = typer.Option(Path("data"), "--data-dir", help="The data folder.")
JSON = typer.Option(False, "--json", help="Print as JSON.")


def require_new_triples(output: Path, overwrite: bool, flag: str = "--output") -> None:
    """
    Raises:
        UsageError: if this is no file of triples, or one is there that may not be replaced.
        OSError: if nothing can be written there.
    """
    from ragcun_cli.errors import UsageError
    from ragcun_cli.files import require_writable

    if output.suffix != ".jsonl":
        raise UsageError(f"{flag} {output}: triples are written as JSON Lines", f"Call it {output.stem}.jsonl.")
    if output.exists() and not overwrite:
        raise UsageError(f"{flag} {output}: is there already", "Give --overwrite to replace it.")
    require_writable(output)
