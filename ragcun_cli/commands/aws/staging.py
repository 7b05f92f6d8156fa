"""`ragcun aws stage`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ragcun_cli.commands.aws.launching import start_run
from ragcun_cli.commands.aws.opening import open_account, require_bucket_name
from ragcun_cli.commands.aws.options import ALLOW_CHANGES, BUCKET, CODE, JSON, ON_DEMAND, PROFILE, REGION, YES
from ragcun_cli.commands.choices import listed
from ragcun_cli.console import note
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.quantities import counted

if TYPE_CHECKING:
    from ragcun_cli.aws.calls import Aws

HOURS = 12.0  # 10 GB at 0.25 MB/s


def stage(
    datasets: list[str] = typer.Option(
        ["beir", "msmarco"],
        "--datasets",
        "-d",
        help="Downloads to keep, as for `ragcun data download`; may be repeated.",
    ),
    folder: Path | None = typer.Option(None, "--from", help="A data folder here that has them."),
    instance: str | None = typer.Option(
        None, "--instance", "-i", help="Or a cheap machine that downloads them, such as c7i.xlarge."
    ),
    on_demand: bool = ON_DEMAND,
    run: str = typer.Option("stage", "--run", help="Name of the machine's run."),
    regions: list[str] = REGION,
    bucket: str | None = BUCKET,
    profile: str | None = PROFILE,
    code: Path | None = CODE,
    allow_changes: bool = ALLOW_CHANGES,
    yes: bool = YES,
    json_output: bool = JSON,
) -> None:
    """Keep downloads in the bucket, so that machines with GPUs get them from there and not from public servers.

    Either from a data folder here, or by a cheap machine that downloads them and ends itself. What the bucket already
    has is not copied again. Example: ragcun aws stage --from data
    """
    from ragcun_cli.aws.names import bucket_name, require_run_name
    from ragcun_cli.aws.planning import parsed_regions
    from ragcun_cli.data.fetch.catalogue import expand

    if (folder is None) == (instance is None):
        raise UsageError("give --from FOLDER or --instance TYPE", "Where should the files come from? Try --from data.")
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--from {folder}: no such folder", "Name the data folder that `ragcun data download` filled.")
    if not any(listed(each) for each in datasets):
        raise UsageError("--datasets: name at least one download", "`ragcun data list` shows them.")
    wanted = expand([name for each in datasets for name in listed(each)])
    aws = open_account(profile)
    places = parsed_regions(regions, aws.session.region_name)
    for region in places:
        aws.require_region(region)
    if bucket is not None:
        require_bucket_name(bucket)
    if folder is not None:
        if len(places) > 1:
            raise UsageError("--region: with --from, give the one region whose bucket should have the files")
        name = bucket or bucket_name(aws.account()[0], places[0])
        return _copy(aws, folder, wanted, name, places[0], bucket is not None)
    from ragcun_cli.aws.code import archive_checkout, default_checkout
    from ragcun_cli.aws.job import files_of_download, staging_job
    from ragcun_cli.aws.launch_record import LaunchRequest
    from ragcun_cli.aws.planning import make_plan
    from ragcun_cli.aws.runs import find_run
    from ragcun_cli.aws.staging import staged_files

    request = LaunchRequest(
        run=require_run_name(run), instance=instance or "", regions=places, on_demand=on_demand, max_hours=HOURS,
        bucket=bucket,
    )  # fmt: skip
    account = aws.account()[0]
    there = staged_files(aws, account, bucket or bucket_name(account, places[0]), places[0])
    missing = [name for name in wanted if any(file not in there for file, _ in files_of_download(name))]
    if not missing:
        return note("The bucket has all of them: nothing was started.")
    if (found := find_run(aws, account, run, places[0], bucket)) is not None:
        raise UsageError(
            f"--run {run}: there is a run of this name; it is {found.state()}",
            f"Look at it: ragcun aws status {run}; remove it: ragcun aws terminate {run}; or choose another --run.",
        )
    planned = make_plan(aws, request, staging_job(missing))
    return start_run(aws, planned, archive_checkout(code or default_checkout(), allow_changes), 0.0, yes, json_output)


def _copy(aws: Aws, folder: Path, wanted: list[str], bucket: str, region: str, is_users: bool) -> None:
    from ragcun_cli.aws.resources.bucket import ensure_bucket
    from ragcun_cli.aws.staging import stage_files, staged_store

    ensure_bucket(aws, aws.account()[0], bucket, region, is_users)
    try:
        copied = stage_files(staged_store(aws, bucket, region), folder, wanted, note)
    except FileNotFoundError as error:
        raise UsageError(str(error), f"ragcun data download {' '.join(wanted)} --data-dir {folder}") from None
    except OSError as error:
        raise EnvironmentUnfit(str(error), "Run it again: what the bucket has is not copied again.") from None
    note(f"Copied {counted(copied, 'file')} to s3://{bucket}/datasets/; launches in {region} use them.")
