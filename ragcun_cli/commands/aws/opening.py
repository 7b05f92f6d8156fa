"""Find the account and the run that a command is for."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import typer

from ragcun_cli.console import visible
from ragcun_cli.errors import UsageError

if TYPE_CHECKING:
    from ragcun_cli.aws.calls import Aws
    from ragcun_cli.aws.runs import FoundRun


BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_account(profile: str | None) -> Aws:
    """Open the account with the credentials of the profile or the environment."""
    from ragcun_cli.aws.calls import Aws, open_session

    return Aws(open_session(profile))


def region_of(aws: Aws, given: str | None) -> str:
    """Return the region to ask first."""
    if given is not None:
        aws.require_region(given)
    return given or aws.session.region_name or "us-east-1"


def the_run(aws: Aws, run: str, region: str | None, bucket: str | None) -> FoundRun:
    """Find a run by its name.

    Raises:
        UsageError: if there is no such run.
    """
    from ragcun_cli.aws.names import require_run_name
    from ragcun_cli.aws.runs import require_run

    if bucket is not None:
        require_bucket_name(bucket)
    return require_run(aws, aws.account()[0], require_run_name(run), region_of(aws, region), bucket)


def require_bucket_name(bucket: str) -> None:
    """Refuse what cannot be a bucket's name.

    Raises:
        UsageError: naming --bucket.
    """
    if not BUCKET_NAME.fullmatch(bucket):
        raise UsageError(
            f"--bucket {visible(bucket)}: not a valid S3 bucket name", "Use lower-case letters, digits and hyphens."
        )


def confirm(question: str, yes: bool) -> None:
    """Ask once, unless --yes was given.

    Raises:
        UsageError: if the answer is no, or there is none.
    """
    if yes:
        return
    typer.echo(f"{question} [y/N] ", err=True, nl=False)
    answer = sys.stdin.readline()  # typer.confirm treats Ctrl-C, no input and "no" alike
    if not answer:
        typer.echo(err=True)
        raise UsageError("no answer was given: nothing was done", "--yes answers for you.")
    if answer.strip().lower() not in ("y", "yes"):
        raise UsageError("not confirmed: nothing was done")
