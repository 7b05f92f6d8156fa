"""`ragcun data`: list, download, check, mine, import."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from ragcun_cli.commands import completion

if TYPE_CHECKING:
    from ragcun_cli.data.checking import CheckReport
    from ragcun_cli.data.fetch.catalogue import Plan

app = typer.Typer(no_args_is_help=True, help="Bring training and test data here, look at them, mine hard negatives.")

EXAMPLE_CHARACTERS = 70
LENGTH_COLUMNS = ("measured", "mean", "median", "95 %", "longest", "cut")

DATA_DIR = typer.Option(Path("data"), "--data-dir", help="The data folder.")
JSON = typer.Option(False, "--json", help="Print as JSON.")


@app.command("list")
def list_sources(data_dir: Path = DATA_DIR, json_output: bool = JSON) -> None:
    """List every known source: its size, licence and use, and whether it is here and verified; then your own.

    `verified`: compared with the published checksum, and not written to since. Your own: other collections in BEIR's
    layout in --data-dir. Example: ragcun data list
    """
    import dataclasses

    from ragcun_cli.console import Column, note, plain, print_json, print_table
    from ragcun_cli.data.fetch.catalogue import entries
    from ragcun_cli.quantities import megabytes

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
    note("Bring one: ragcun data download NAME. Groups: beir (the 14 public sets), all. `-` under size: licensed sets;")
    note("their owners give them out, and `ragcun data import NAME --from FOLDER` takes them.")


@app.command()
def download(
    names: list[str] = typer.Argument(
        ...,
        help="Names of `ragcun data list`; msmarco (500k training triples and a dev set), beir (14 sets), all.",
        autocompletion=completion.downloads,
    ),
    data_dir: Path = DATA_DIR,
    mirror: str | None = typer.Option(
        None,
        "--mirror",
        metavar="URL|DIR",
        help="Take the files from here; laid out like a data folder, such as one "
        "that ragcun filled on another machine.",
    ),
    jobs: int = typer.Option(4, "--jobs", "-j", min=1, max=32, help="Files at a time."),
    timeout: float = typer.Option(30, "--timeout", min=1, help="Seconds to wait for a server that sends nothing."),
    attempts: int = typer.Option(
        6, "--attempts", min=1, help="Attempts in a row that bring nothing, before giving up."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a file that is here with another content."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would come, and stop."),
    json_output: bool = typer.Option(False, "--json", help="Print as JSON how these datasets stand in the end."),
) -> None:
    """Download datasets: resumed where it broke off, checked before a file gets its name.

    Ctrl-C keeps what came; the same command goes on from there. HF_TOKEN, HF_HOME, HF_ENDPOINT and the usual proxy
    variables are respected. Example: ragcun data download msmarco beir
    """
    import dataclasses

    from ragcun_cli.console import note, print_json
    from ragcun_cli.data.fetch.catalogue import entries, expand, plan_download
    from ragcun_cli.data.fetch.opening import Patience
    from ragcun_cli.data.fetch.several import fetch_all
    from ragcun_cli.data.msmarco import prepare_training_sets
    from ragcun_cli.data.registry import TRAINING

    chosen = expand(names)
    plan = plan_download(chosen, data_dir, mirror)
    _show_plan(plan)
    if not dry_run:
        files = [each for of_name in plan.files.values() for each in of_name]
        to_prepare = [name for name in plan.files if name in TRAINING]
        patience = Patience(seconds=timeout, attempts=attempts)
        fetch_all(data_dir, files, jobs, patience, overwrite, more_bytes=plan.to_come(to_prepare))
        prepare_training_sets(to_prepare, data_dir)
    if json_output:
        print_json([dataclasses.asdict(each) for each in entries(data_dir) if each.name in chosen])
    for error in plan.failed.values():
        raise error
    if not dry_run:
        where = "" if data_dir == Path("data") else f" --data-dir {data_dir}"
        note(f"All of it is in {data_dir}/. See: ragcun data list{where}")


@app.command()
def check(
    sources: list[str] = typer.Argument(
        ..., help="Training files, collections in BEIR's layout, or names of `ragcun data list`."
    ),
    data_dir: Path = DATA_DIR,
    dev: str | None = typer.Option(
        None, "--dev", help="A dev set that must not be in the training data; msmarco's own by default."
    ),
    against: list[str] = typer.Option(
        [],
        "--against",
        help="Test sets to look for in the training data, comma-separated; all of BEIR's that are in --data-dir by "
        "default.",
    ),
    tokenizer: str = typer.Option(
        "embedded:all-MiniLM-L6-v2", "--tokenizer", help="The model whose tokens lengths are counted in."
    ),
    max_length: int = typer.Option(384, "--max-length", min=2, help="Texts of more tokens are counted as cut."),
    batch_size: int = typer.Option(
        16,
        "--batch-size",
        min=2,
        help="Of the training: which triples it leaves out, and which are each other's negatives.",
    ),
    write: Path | None = typer.Option(
        None,
        "--write",
        metavar="CLEAN.jsonl",
        help="Write the triples that have no query or answer of the dev and test sets; one source. The counts go to "
        "CLEAN.jsonl.provenance.json.",
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace CLEAN.jsonl if it is there."),
    no_lengths: bool = typer.Option(False, "--no-lengths", help="Without counting tokens, which takes longest."),
    strict: bool = typer.Option(False, "--strict", help="Exit code 1 if anything was found."),
    json_output: bool = JSON,
) -> None:
    """Say what is in training data and collections, and what is wrong with them.

    Counts, lengths in tokens, duplicates, empty texts, negatives that are positives, and whether dev or test queries
    and their passages are among the training texts. Example: ragcun data check msmarco --against scifact,nfcorpus
    """
    import dataclasses

    from ragcun_cli.console import print_json
    from ragcun_cli.errors import ExitCode, UsageError

    if write is not None:
        if len(sources) > 1:
            raise UsageError("--write: one file is written, and several sources are named", "Name one.")
        _check_output(write, overwrite, "--write")
    count_tokens = None
    if not no_lengths:
        from ragcun_cli.model.sources import require_model

        require_model(tokenizer)
        from ragcun_cli.model.tokenizer import token_counter

        count_tokens = token_counter(tokenizer)

    from ragcun_cli.data.reports import Wishes, check_source

    others = [name.strip() for group in against for name in group.split(",") if name.strip()]
    wishes = Wishes(data_dir, dev, others, count_tokens, max_length, batch_size, write)
    reports = [report for source in sources for report in check_source(source, wishes)]
    if json_output:
        print_json([dataclasses.asdict(each) for each in reports])
    else:
        for report in reports:
            _print_report(report)
    if strict and any(report.findings for report in reports):
        raise typer.Exit(ExitCode.FAILED)


@app.command()
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
    pick: str = typer.Option(
        "hardest",
        "--pick",
        help="hardest: the nearest of the ranks; sample: at random from them; corpus: at random from all passages, "
        "without any model.",
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Of what is picked at random."),
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

    _check_output(output, overwrite)
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
    names = [name.strip() for group in exclude for name in group.split(",") if name.strip()]
    excluded = read_excluded(names, data_dir)
    if model is not None:
        require_model(model)

    from ragcun_cli.evaluate.beir import ModelToScore, Settings
    from ragcun_cli.evaluate.mining import Mining, Pick
    from ragcun_cli.evaluate.mining import mine as mine_negatives

    settings = Settings(memory=budget, processes=processes)
    mining = Mining(negatives, first, last, margin, cast(Pick, pick), seed)
    asked = None if model is None else ModelToScore(model, None, max_length)
    mined = mine_negatives(found, asked, settings, mining, output, excluded)
    if json_output:
        print_json({"output": str(output), **dataclasses.asdict(mined)})
        return
    if mined.short:
        fewer = f"{mined.short - mined.none} got fewer than {negatives} negatives" if mined.short > mined.none else ""
        pairs = f"{mined.none} pairs got no negative and stay as pairs" if mined.none else ""
        note(f"{'; '.join(filter(None, (fewer, pairs)))} (--ranks, --margin).")
    if mined.without_text:
        note(f"{mined.without_text} relevant passages are empty and make no triple.")
    if mined.nearer_left_out:
        note(f"--margin excluded {mined.nearer_left_out:,} candidates.")
    if names:
        note(f"--exclude left out {mined.excluded} pairs of {', '.join(names)}.")
    note(f"Next: ragcun train --recipe isotropy --set data.train={output} --set data.dev=null")


@app.command("import")
def import_licensed(
    name: str = typer.Argument(..., help="robust04, trec-news, signal1m or bioasq."),
    delivered: Path = typer.Option(..., "--from", help="The folder with what the owner delivers; see docs/data.md."),
    data_dir: Path = DATA_DIR,
    overwrite: bool = typer.Option(False, "--overwrite", help="Make it again if it is here."),
    json_output: bool = JSON,
) -> None:
    """Turn a licensed set's files, as their owner delivers them, into BEIR's layout, and compare the counts.

    Example: ragcun data import robust04 --from trec-disks-4-5/
    """
    import dataclasses

    from ragcun_cli.console import note, print_json
    from ragcun_cli.data.licensed.importing import import_set

    done = import_set(name, delivered, data_dir, overwrite)
    if json_output:
        print_json({**dataclasses.asdict(done), "folder": str(done.folder)})
        return
    note(f"{done.folder}: {done.passages:,} passages, {done.queries:,} queries, {done.judgements:,} judgements.")
    for difference in done.differences:
        note(f"It differs: {difference}.")
    note("Its scores will say that it differs." if done.differences else f"Next: {_scoring(name, data_dir)}")


def _scoring(name: str, data_dir: Path) -> str:
    """The command that scores a model on a collection of the data folder."""
    where = "" if data_dir == Path("data") else f" --data-dir {shlex.quote(str(data_dir))}"
    return f"ragcun eval beir --model RUN --datasets {shlex.quote(name)}{where}"


def _ranks(negatives: int, ranks: str | None, margin: float | None, pick: str, model: str | None) -> tuple[int, int]:
    """The first and the last rank that negatives are taken from, where all of these go together."""
    from ragcun_cli.errors import UsageError
    from ragcun_cli.recipe.problems import did_you_mean

    known = ["hardest", "sample", "corpus"]
    if pick not in known:
        raise UsageError(f"--pick {pick}: there is no such way; {did_you_mean(pick, known)}")
    if pick == "corpus" and (ranks is not None or margin is not None):
        raise UsageError("--pick corpus: takes any passage, so that --ranks and --margin mean nothing", "Drop them.")
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


def _check_output(output: Path, overwrite: bool, flag: str = "--output") -> None:
    from ragcun_cli.errors import UsageError
    from ragcun_cli.files import require_writable

    if output.suffix != ".jsonl":
        raise UsageError(f"{flag} {output}: triples are written as JSON Lines", f"Call it {output.stem}.jsonl.")
    if output.exists() and not overwrite:
        raise UsageError(f"{flag} {output}: is there already", "Give --overwrite to replace it.")
    require_writable(output)


def _print_report(report: CheckReport) -> None:
    from ragcun_cli.console import Column, note, plain, print_table
    from ragcun_cli.data.checking import shortened

    counts = [[what, f"{count:,}"] for what, count in report.counts.items()]
    print_table([Column(plain(report.source)), Column("", numeric=True)], counts)
    if report.lengths:
        columns = [Column("tokens of"), *(Column(each, numeric=True) for each in LENGTH_COLUMNS)]
        print_table(
            columns,
            [
                [
                    each.of,
                    f"{each.texts:,}",
                    f"{each.mean:.1f}",
                    f"{each.median:.0f}",
                    f"{each.percentile_95:.0f}",
                    f"{each.longest:,}",
                    f"{each.cut:,} ({100 * each.cut / max(1, each.texts):.1f} %) over {each.limit}",
                ]
                for each in report.lengths
            ],
        )
    count, of = Column("count", numeric=True), Column("of", numeric=True)
    columns = [Column("found", wraps=True), count, of, Column("such as", wraps=True)]
    rows = [
        [each.what, f"{each.count:,}", f"{each.of:,}", plain(shortened(each.examples[0], EXAMPLE_CHARACTERS))]
        for each in report.findings
    ]
    if rows:
        print_table(columns, rows)
    found = len(report.findings)
    note(f"{report.source}: {len(report.checked)} checks, {found or 'none'} with findings.")
    if report.written:
        note(f"Written to {report.written}.")
    for each in report.not_checked:
        note(f"Not looked for: {each}")


def _show_plan(plan: Plan) -> None:
    """Sizes and licences, before the first byte."""
    from ragcun_cli.console import note
    from ragcun_cli.data.fetch.catalogue import described
    from ragcun_cli.quantities import megabytes

    for name, files in plan.files.items():
        known = described(name)
        size = megabytes(sum(each.bytes or each.about for each in files))
        here = ", here already" if all(each.path.exists() for each in files) else ""
        note(f"{name} ({known.task}): {size}{here}. Licence: {known.licence}.")
    for name, error in plan.failed.items():
        note(f"{name}: cannot come: {error.message}")
    note(f"{megabytes(plan.to_come())} to come. Licences bind you, not ragcun: read them at the data's owners.")
