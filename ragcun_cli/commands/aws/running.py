"""`ragcun aws status`, `logs`, `shell`, `fetch`, `terminate` and `watch`: follow and end a launched run."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ragcun_cli.aws.names import require_run_name
from ragcun_cli.commands.aws.opening import confirm, open_account, region_of, require_bucket_name, the_run
from ragcun_cli.commands.aws.options import ACCEPT_RECORD, JSON, ONE_REGION, OWN_BUCKET, PROFILE, WHICH, YES
from ragcun_cli.commands.aws.showing import RUN_COLUMNS, run_row, show_run, show_runs
from ragcun_cli.commands.choices import listed
from ragcun_cli.console import LiveTable, note, print_json, print_text, saying_if_interrupted, visible
from ragcun_cli.errors import DataError, EnvironmentUnfit, UsageError
from ragcun_cli.quantities import counted, shown_bytes

if TYPE_CHECKING:
    from ragcun_cli.aws.launch_record import LaunchRequest
    from ragcun_cli.aws.runs import FoundRun


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

    if bucket is not None:
        require_bucket_name(bucket)
    aws = open_account(profile)
    account, place = aws.account()[0], region_of(aws, region)
    if run is not None:
        return show_run(the_run(aws, run, region, bucket), json_output)
    runs, unreadable = [], 0
    for name in runs_in(aws, account, place, bucket):
        try:
            found = find_run(aws, account, name, place, bucket)
        except (DataError, EnvironmentUnfit) as error:  # one run's broken record must not hide the others
            note(f"{name}: {error.message} {error.hint}")
            unreadable += 1
            continue
        runs += [] if found is None else [found]
    if json_output:
        return print_json([found.as_json() for found in runs])
    if runs:
        show_runs(runs)
    elif not unreadable:
        note("There are no runs.")
    if unreadable:
        raise typer.Exit(DataError.exit_code)
    return None


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
            print_text(visible(line))
        return None
    lines = log_lines(aws, found, 0, set())[0]
    if json_output:
        return print_json({"run": run, "state": found.state(), "lines": lines})
    for line in lines:
        print_text(visible(line))
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
    if not wanted:
        raise UsageError(f"--parts: name at least one of {', '.join(PARTS)}")
    if to.exists() and not to.is_dir():
        raise UsageError(f"--to {to}: a file, not a folder", "Name a folder; it is made if it does not exist.")
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
        what = "Nothing" if parts is None else f"Nothing of {', '.join(wanted)}"
        return note(f"{what} has been saved yet: the run is {state}.")
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
    delete_bucket: bool = typer.Option(
        False, "--delete-bucket", help="Remove the bucket too, if it is empty then; S3 may refuse its name for an hour."
    ),
    region: str | None = ONE_REGION,
    bucket: str | None = OWN_BUCKET,
    profile: str | None = PROFILE,
    yes: bool = YES,
    json_output: bool = JSON,
) -> None:
    """End a run's machines and remove everything it has on AWS, including its objects. Touches nothing else.

    It works whatever the run's records say. Example: ragcun aws terminate isotropy --keep-bucket
    """
    from ragcun_cli.aws.termination import remove_all, what_there_is

    if keep_bucket and delete_bucket:
        raise UsageError("--keep-bucket and --delete-bucket contradict each other")
    if bucket is not None:
        require_bucket_name(bucket)
    aws = open_account(profile)
    found = what_there_is(aws, require_run_name(run), region_of(aws, region), bucket)
    if found.problem:
        note(f"Its record cannot be used ({found.problem}); everything with its name or tag is removed.")
    objects = "but keep its objects" if keep_bucket else f"and everything at {found.address} (results, models)"
    if found.unread:
        note(f"Machines could not be looked for in {', '.join(found.unread)}; `ragcun aws gc` tries again.")
    confirm(f"Remove run {run}: its machines, roles, log, {objects}?", yes)
    done = remove_all(aws, found, keep_objects=keep_bucket, delete_bucket=delete_bucket)
    if done.left:
        raise EnvironmentUnfit(
            "these could not be removed:\n" + "\n".join(f"  {each.sentence()}" for each in done.left), "Run it again."
        )
    if json_output:
        kept = found.address if keep_bucket else None
        return print_json({"run": run, "kept": kept, "objects_removed": done.objects, "bucket_removed": done.bucket})
    if keep_bucket:
        return note(f"Removed; its saved objects remain at {found.address}")
    return note(f"Removed, with {done.objects:,} objects{' and the empty bucket' if done.bucket else ''}.")


def watch(
    run: str = WHICH,
    region: str | None = ONE_REGION,
    bucket: str | None = OWN_BUCKET,
    profile: str | None = PROFILE,
    accept_record: bool = ACCEPT_RECORD,
    yes: bool = YES,
    json_output: bool = JSON,
) -> None:
    """Watch a run until it is over, and start another machine whenever it is interrupted.

    It starts machines only as this computer's user launched or confirmed them; on another computer it asks first.
    Ctrl-C stops the watching, not the run. Exit code 0 if the run is finished, 1 if it ended otherwise.
    Example: ragcun aws watch isotropy
    """
    from ragcun_cli.aws import watch as watching

    aws = open_account(profile)
    _confirm_record(the_run(aws, run, region, bucket), accept_record, yes)
    with (
        saying_if_interrupted("The run continues; only the watching has stopped."),
        LiveTable(RUN_COLUMNS) as table,
    ):
        found = watching.watch(
            lambda: the_run(aws, run, region, bucket),
            lambda found: watching.relaunch(aws, found, note, {}, unasked=True),
            lambda found: watching.end_all(aws, found),
            lambda found: table.show([run_row(found)]),
            note,
        )
    watching.require_finished(found)
    if json_output:
        return print_json(found.as_json())
    return note(f"Finished after {found.hours():.1f} hours. Next:  ragcun aws fetch {run}")


def _confirm_record(found: FoundRun, accept_record: bool, yes: bool) -> None:
    """Make sure that this computer has a copy of what machines may be started by.

    Raises:
        UsageError: if the record differs from the copy, or is not confirmed.
    """
    from ragcun_cli.aws.kept import changes, keep, kept_record, require_as_kept

    launch, bucket = found.launch, found.record.bucket
    copy = kept_record(launch.account, bucket, launch.run)
    if copy is not None and not accept_record:
        return require_as_kept(launch, bucket)
    if copy is not None:
        different = changes(copy, launch)
        note(
            "\n  ".join(
                ["The record differs from this computer's copy:" if different else "Nothing differs.", *different]
            )
        )
    wishes = launch.wishes
    note(
        f"Machines of run {found.run} are started from its record in the bucket: {wishes.nodes} x {wishes.instance}, "
        f"{'on demand' if wishes.on_demand else 'spot'}, in {', '.join(wishes.regions)}, for at most "
        f"{wishes.max_hours:g} hours in all; code {launch.code.commit[:12]} (sha256 {launch.code.sha256[:12]}…)"
        + "".join(f"; {name.replace('_', ' ')} {value}" for name, value in _chosen(wishes).items())
        + "."
    )
    confirm("Start machines from this record when needed?", yes)
    return keep(launch, bucket)


def _chosen(wishes: LaunchRequest) -> dict[str, object]:
    """Return the less common options that the run was launched with."""
    names = ("image", "disk", "subnets", "security_group", "max_cost", "email")
    return {name: value for name in names if (value := getattr(wishes, name))}
