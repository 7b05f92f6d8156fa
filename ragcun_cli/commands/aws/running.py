"""`ragcun aws status`, `logs`, `shell`, `fetch`, `terminate` and `watch`: follow and end a launched run."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import typer

from ragcun_cli.commands.aws.opening import confirm, open_account, region_of, the_run
from ragcun_cli.commands.aws.options import JSON, ONE_REGION, OWN_BUCKET, PROFILE, WHICH, YES
from ragcun_cli.commands.aws.showing import RUN_COLUMNS, run_row, show_run, show_runs
from ragcun_cli.commands.choices import listed
from ragcun_cli.console import LiveTable, note, print_json, saying_if_interrupted
from ragcun_cli.errors import DataError, EnvironmentUnfit, UsageError
from ragcun_cli.quantities import counted, shown_bytes


def status(
    run: str | None = typer.Argument(None, metavar="[RUN]", help="Name of the run; all runs by default."),
    region: str | None = ONE_REGION,
    bucket: str | None = OWN_BUCKET,
    profile: str | None = PROFILE,
    json_output: bool = JSON,
) -> None:
    """Show the progress of a run: state, machine, hours and cost so far, step and loss of each training.

    Example: ragcun aws status isotropy
    """
    from ragcun_cli.aws.runs import find_run, runs_in

    aws = open_account(profile)
    account, place = aws.account()[0], region_of(aws, region)
    if run is not None:
        return show_run(the_run(aws, run, region, bucket), json_output)
    names = runs_in(aws, account, place, bucket)
    runs = [found for name in names if (found := find_run(aws, account, name, place, bucket)) is not None]
    if json_output:
        return print_json([found.as_json() for found in runs])
    if not runs:
        return note("There are no runs.")
    return show_runs(runs)


def logs(
    run: str = WHICH,
    follow: bool = typer.Option(False, "--follow", "-f", help="Keep printing until the run is over."),
    region: str | None = ONE_REGION,
    bucket: str | None = OWN_BUCKET,
    profile: str | None = PROFILE,
    json_output: bool = JSON,
) -> None:
    """Print a run's log, from all its machines in order of time.

    Example: ragcun aws logs isotropy --follow
    """
    from ragcun_cli.aws.watch import follow_log, log_lines

    if follow and json_output:
        raise UsageError("--json prints only the lines so far", "Leave out --follow.")
    aws = open_account(profile)
    found = the_run(aws, run, region, bucket)
    if follow:
        for line in follow_log(aws, lambda: the_run(aws, run, region, bucket)):
            typer.echo(line)
        return None
    lines = log_lines(aws, found, 0, set())[0]
    if json_output:
        return print_json({"run": run, "state": found.state(), "lines": lines})
    for line in lines:
        typer.echo(line)
    if not lines:
        note(f"There are no lines yet: the run is {found.state()}.")
    return None


def shell(
    run: str = WHICH,
    region: str | None = ONE_REGION,
    bucket: str | None = OWN_BUCKET,
    profile: str | None = PROFILE,
) -> None:
    """Open a shell on a run's machine, through AWS Systems Manager; no port is opened. The run's folder is /opt/ragcun.

    Needs the AWS command line with its Session Manager plugin. Example: ragcun aws shell isotropy
    """
    aws = open_account(profile)
    found = the_run(aws, run, region, bucket)
    if not found.machines:
        raise UsageError(f"run {run} has no machine now ({found.state()})", f"Check it: ragcun aws status {run}")
    for program in ("aws", "session-manager-plugin"):
        if shutil.which(program) is None:
            raise EnvironmentUnfit(f"{program} is not installed", "AWS_SETUP.md, section 7, says where to get it.")
    machine = found.machines[0]
    command = ["aws", "ssm", "start-session", "--target", machine.id, "--region", machine.region]
    os.execvp("aws", [*command, *(["--profile", profile] if profile else [])])


def fetch(
    run: str = WHICH,
    to: Path = typer.Option(Path(), "--to", help="Folder for results/, report/, logs/ and checkpoints/."),
    parts: str | None = typer.Option(
        None,
        "--parts",
        help="results, report, logs, models, checkpoints (to resume here); comma-separated. All but checkpoints by "
        "default.",
    ),
    region: str | None = ONE_REGION,
    bucket: str | None = OWN_BUCKET,
    profile: str | None = PROFILE,
    json_output: bool = JSON,
) -> None:
    """Fetch a run's results, report, logs and models, and check each file against its checksum.

    Example: ragcun aws fetch isotropy --to isotropy-run
    """
    from ragcun_cli.aws.fetch import PARTS, USUAL_PARTS, fetch_run

    wanted = USUAL_PARTS if parts is None else listed(parts)
    if unknown := [part for part in wanted if part not in PARTS]:
        raise UsageError(f"--parts {unknown[0]}: choose from {', '.join(PARTS)}")
    found = the_run(open_account(profile), run, region, bucket)
    done = fetch_run(found.record, wanted, to)
    if done.problems:
        raise DataError("incomplete in the bucket:\n" + "\n".join(done.problems), "A machine may still be writing it.")
    state = found.state()
    if json_output:
        return print_json({**dataclasses.asdict(done), "state": state})
    if not done.files + done.unchanged + done.models:
        return note(f"Nothing has been saved yet: the run is {state}.")
    same = f", {done.unchanged} were already here" if done.unchanged else ""
    note(
        f"{counted(done.files, 'file')} ({shown_bytes(done.bytes)}) and {counted(done.models, 'model')} in {to}{same}; "
        + (f"{done.unlisted} of them have no checksum in the run's list." if done.unlisted else "all checked.")
    )
    note(f"Next:  ragcun report table --results {to / 'results'}")
    if state == "finished":
        return note(f"Done?  ragcun aws terminate {run}")
    return note(f"The run is {state}: this is not everything.")


def terminate(
    run: str = WHICH,
    keep_bucket: bool = typer.Option(
        False, "--keep-bucket", help="Keep the run's objects: results, models, checkpoints."
    ),
    region: str | None = ONE_REGION,
    bucket: str | None = OWN_BUCKET,
    profile: str | None = PROFILE,
    yes: bool = YES,
    json_output: bool = JSON,
) -> None:
    """End a run's machines and remove everything it has on AWS, including its objects. Touches nothing else.

    Example: ragcun aws terminate isotropy --keep-bucket
    """
    from ragcun_cli.aws.build.storage import LAUNCH_FILE
    from ragcun_cli.aws.record import TERMINATED, now
    from ragcun_cli.aws.removal import remove_bucket_if_empty, remove_machinery, remove_objects
    from ragcun_cli.aws.runs import wishes_of

    aws = open_account(profile)
    found = the_run(aws, run, region, bucket)
    record = found.record
    objects = "but keep its objects" if keep_bucket else f"and everything at {record.address} (results, models)"
    confirm(f"Remove run {run} ({found.state()}): its machines, roles, log, {objects}?", yes)
    # Do this first: it keeps `aws watch` from starting another machine meanwhile.
    record.write_json(LAUNCH_FILE, {**found.launch, TERMINATED: now().isoformat()})
    has_budget = found.launch["wishes"]["email"] is not None
    left = remove_machinery(aws, run, record.region, found.regions, record.account, has_budget)
    if left:
        raise EnvironmentUnfit(
            "these could not be removed:\n" + "\n".join(f"  {each.sentence()}" for each in left), "Run it again."
        )
    count = 0 if keep_bucket else remove_objects(record)
    made_by_ragcun = wishes_of(found.launch).bucket is None
    gone = not keep_bucket and made_by_ragcun and remove_bucket_if_empty(aws, record.bucket, record.region)
    if json_output:
        kept = record.address if keep_bucket else None
        return print_json({"run": run, "kept": kept, "objects_removed": count, "bucket_removed": gone})
    if keep_bucket:
        return note(f"Removed; its saved objects remain at {record.address}")
    return note(f"Removed, with {count:,} objects{' and the empty bucket' if gone else ''}.")


def watch(
    run: str = WHICH,
    region: str | None = ONE_REGION,
    bucket: str | None = OWN_BUCKET,
    profile: str | None = PROFILE,
    json_output: bool = JSON,
) -> None:
    """Watch a run until it is over, and start another machine whenever it is interrupted.

    Ctrl-C stops the watching, not the run. Exit code 0 if the run is finished, 1 if it ended otherwise.
    Example: ragcun aws watch isotropy
    """
    from ragcun_cli.aws import watch as watching

    aws = open_account(profile)
    with (
        saying_if_interrupted("The run continues; only the watching has stopped."),
        LiveTable(RUN_COLUMNS) as table,
    ):
        found = watching.watch(
            lambda: the_run(aws, run, region, bucket),
            lambda found: watching.relaunch(aws, found, note, {}),
            lambda found: table.show([run_row(found)]),
            note,
        )
    watching.require_finished(found)
    if json_output:
        return print_json(found.as_json())
    return note(f"Finished after {found.hours():.1f} hours. Next:  ragcun aws fetch {run}")
