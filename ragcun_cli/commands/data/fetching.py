"""`ragcun data list`, `download` and `import`: list available data and bring it here."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ragcun_cli.commands import completion
from ragcun_cli.commands.data.options import DATA_DIR, JSON
from ragcun_cli.console import Column, note, plain, print_json, print_table
from ragcun_cli.quantities import megabytes

if TYPE_CHECKING:
    from ragcun_cli.data.fetch.catalogue import Plan


def list_sources(data_dir: Path = DATA_DIR, json_output: bool = JSON) -> None:
    """List every known source with its size, licence, use and local state; then your own collections.

    `verified`: the file matches the published checksum and has not changed since. Your own: other collections in BEIR's
    layout in --data-dir. Example: ragcun data list
    """
    import dataclasses

    from ragcun_cli.data.fetch.catalogue import entries

    rows = entries(data_dir)
    if json_output:
        print_json([dataclasses.asdict(each) for each in rows])
        return
    texts = [Column("texts", wraps=True), Column("licence", wraps=True)]
    for kind in ("training", "evaluation"):
        print_table(
            [Column(f"for {kind}"), *texts, Column("size", numeric=True), Column("here")],
            [
                [
                    each.name,
                    each.task,
                    each.licence,
                    "-" if each.bytes is None else megabytes(each.bytes),
                    each.state or "-",
                ]
                for each in rows
                if each.kind == kind
            ],
        )
    if own := [each.name for each in rows if each.kind == "own"]:
        columns = [Column("your own"), Column("score a model on it", wraps=True)]
        print_table(columns, [[plain(name), plain(_scoring(name, data_dir))] for name in own])
    note("Get one: ragcun data download NAME. Groups: beir (the 14 public sets), all. `-` under size: licensed sets;")
    note("get them from their owners, then run `ragcun data import NAME --from FOLDER`.")


def _scoring(name: str, data_dir: Path) -> str:
    """Return the command that scores a model on a collection in the data folder."""
    where = "" if data_dir == Path("data") else f" --data-dir {shlex.quote(str(data_dir))}"
    return f"ragcun eval beir --model RUN --datasets {shlex.quote(name)}{where}"


def download(
    names: list[str] = typer.Argument(
        ...,
        help="Names from `ragcun data list`, such as msmarco (500k training triples, a dev set), beir (14 sets), all.",
        autocompletion=completion.downloads,
    ),
    data_dir: Path = DATA_DIR,
    mirror: str | None = typer.Option(
        None,
        "--mirror",
        metavar="URL|DIR",
        help="Get the files from here instead; laid out like a data folder, such as one "
        "that ragcun filled on another machine.",
    ),
    jobs: int = typer.Option(4, "--jobs", "-j", min=1, max=32, help="Number of files to download at a time."),
    timeout: float = typer.Option(30, "--timeout", min=1, help="Seconds to wait for a server that sends nothing."),
    attempts: int = typer.Option(
        6, "--attempts", min=1, help="Give up after this many attempts in a row without any data."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace existing files whose content differs."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show what would be downloaded, then stop."),
    json_output: bool = typer.Option(False, "--json", help="Print the final state of these datasets as JSON."),
) -> None:
    """Download datasets: interrupted downloads resume, and files are verified before they get their final names.

    Ctrl-C keeps partial files; run the same command to continue. HF_TOKEN, HF_HOME, HF_ENDPOINT and the usual proxy
    variables are respected. Example: ragcun data download msmarco beir
    """
    import dataclasses

    from ragcun_cli.data.fetch.catalogue import entries, expand, plan_download
    from ragcun_cli.data.fetch.download import fetch_all
    from ragcun_cli.data.fetch.sources import RetryPolicy
    from ragcun_cli.data.msmarco import prepare_training_sets
    from ragcun_cli.data.registry import TRAINING

    chosen = expand(names)
    plan = plan_download(chosen, data_dir, mirror)
    _show_plan(plan)
    if not dry_run:
        files = [each for of_name in plan.files.values() for each in of_name]
        to_prepare = [name for name in plan.files if name in TRAINING]
        patience = RetryPolicy(seconds=timeout, attempts=attempts)
        fetch_all(data_dir, files, jobs, patience, overwrite, more_bytes=plan.to_come(to_prepare))
        prepare_training_sets(to_prepare, data_dir)
    if json_output:
        print_json([dataclasses.asdict(each) for each in entries(data_dir) if each.name in chosen])
    for error in plan.failed.values():
        raise error
    if not dry_run:
        where = "" if data_dir == Path("data") else f" --data-dir {data_dir}"
        note(f"Everything is in {data_dir}/. See: ragcun data list{where}")


def _show_plan(plan: Plan) -> None:
    """Show sizes and licences before the download starts."""
    from ragcun_cli.data.fetch.catalogue import described

    for name, files in plan.files.items():
        known = described(name)
        size = megabytes(sum(each.bytes or each.about for each in files))
        here = ", already here" if all(each.path.exists() for each in files) else ""
        note(f"{name} ({known.task}): {size}{here}. Licence: {known.licence}.")
    for name, error in plan.failed.items():
        note(f"{name} cannot be downloaded: {error.message}")
    note(f"{megabytes(plan.to_come())} to download. The licences are binding: read them on the owners' websites.")


def import_licensed(
    name: str = typer.Argument(..., help="robust04, trec-news, signal1m or bioasq."),
    delivered: Path = typer.Option(..., "--from", help="Folder with the files from the owner; see docs/data.md."),
    data_dir: Path = DATA_DIR,
    overwrite: bool = typer.Option(False, "--overwrite", help="Make it again if it already exists."),
    json_output: bool = JSON,
) -> None:
    """Convert a licensed set's files, as delivered by the owner, to BEIR's layout and check the counts.

    Example: ragcun data import robust04 --from trec-disks-4-5/
    """
    import dataclasses

    from ragcun_cli.data.licensed.importing import import_set

    done = import_set(name, delivered, data_dir, overwrite)
    if json_output:
        print_json({**dataclasses.asdict(done), "folder": str(done.folder)})
        return
    note(f"{done.folder}: {done.passages:,} passages, {done.queries:,} queries, {done.judgements:,} judgements.")
    for difference in done.differences:
        note(f"Differs from BEIR: {difference}.")
    note("Its scores will carry a note about this." if done.differences else f"Next: {_scoring(name, data_dir)}")
