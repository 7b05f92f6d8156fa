"""`ragcun aws gc` and `policy`: commands for the whole account."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from ragcun_cli.commands.aws.opening import confirm, open_account, region_of, require_bucket_name
from ragcun_cli.commands.aws.options import JSON, PROFILE, YES
from ragcun_cli.console import Column, note, plain, print_document, print_json, print_table
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.quantities import counted

if TYPE_CHECKING:
    from ragcun_cli.aws.resources.kind import Found


def gc(
    delete: bool = typer.Option(False, "--delete", help="Remove all of it, except for runs that have a machine."),
    everything: bool = typer.Option(False, "--all", help="With --delete: terminate running machines too."),
    regions: list[str] = typer.Option(
        [], "--region", help="Show and remove only what is in these regions, not roles and budgets, which have none."
    ),
    profile: str | None = PROFILE,
    yes: bool = YES,
    json_output: bool = JSON,
) -> None:
    """Find everything that ragcun made in all regions: machines, disks, schedules, templates, groups, roles, logs, …

    Buckets are left alone: `ragcun aws terminate RUN` removes a run's objects. Example: ragcun aws gc
    """
    from ragcun_cli.aws.planning import parsed_regions
    from ragcun_cli.aws.resources import table
    from ragcun_cli.aws.resources.machines import MACHINES
    from ragcun_cli.aws.termination import all_regions

    if everything and not delete:
        raise UsageError("--all extends what --delete removes: give --delete too")
    aws = open_account(profile)
    chosen = parsed_regions(regions, None) if regions else ()
    for region in chosen:
        aws.require_region(region)
    # Look for machines in every region: a run's roles belong to no region.
    places = all_regions(aws, region_of(aws, None))
    whole, unread = table.find_all(aws, places)
    alive = {each.run for each in table.machines_of(whole)}
    found = [each for each in whole if not chosen or each.region in chosen]
    if json_output:
        print_json(
            [
                {**dataclasses.asdict(each), "costs": table.kind_of(each).costs, "in_use": each.run in alive}
                for each in found
            ]
        )
    elif found:
        _show_found(found, alive)
    else:
        read = [each for each in chosen or places if each not in {closed.region for closed in unread}]
        whose = "" if chosen else "; buckets and the account's boundary are not looked for"
        note(f"Found nothing of ragcun's in {counted(len(read), 'region')}{whose}.")
    for where, reason in {each.region or f"{each.kind}s": each.reason for each in reversed(unread)}.items():
        note(f"could not be checked: {where}: {reason}")
    if not delete:
        return
    unlisted = {each.region for each in unread if each.kind == MACHINES.name}
    closed = sorted(unlisted.intersection(chosen or places))
    if closed and not everything:
        raise EnvironmentUnfit(
            f"nothing was removed: there may be machines in {', '.join(closed)}, which need what would be removed",
            "Run it again; or name the regions that can be looked at: --region; or remove everything: --all.",
        )
    removed = [each for each in found if everything or each.run not in alive]
    if found and not removed:
        note("Nothing was removed: all of it belongs to runs that have a machine. --all ends these too.")
    if not removed:
        return
    confirm(f"Remove {len(removed)} of these {len(found)}?", yes)
    if not everything:  # a machine may have started while the question was open
        started = {each.run for region in places if region not in unlisted for each in MACHINES.find(aws, region, None)}
        removed = [each for each in removed if each.run not in started]
    left = table.remove_found(aws, removed)
    if left:
        raise EnvironmentUnfit("these could not be removed:\n" + "\n".join(f"  {each.sentence()}" for each in left))
    note(f"Removed {len(removed)}.")


def _show_found(found: Sequence[Found], alive: set[str]) -> None:
    from ragcun_cli.aws.resources import table

    rows = [
        [
            each.kind,
            plain(each.id),
            each.region or "–",
            plain(each.run),
            each.state,
            "yes" if table.kind_of(each).costs else "",
            "yes" if each.run in alive else "",
        ]
        for each in found
    ]
    headers = ("what", "name", "region", "run", "state", "costs", "in use")
    print_table([Column(header, wraps=header in ("name", "run")) for header in headers], rows)


def policy(
    account: str | None = typer.Option(None, "--account", help="Your account number, filled in where needed."),
    bucket: str | None = typer.Option(None, "--bucket", help="One of your buckets that runs may use too."),
    boundary: bool = typer.Option(
        False, "--boundary", help="Print the permissions boundary instead: the most that a run's machines may ever do."
    ),
    partition: str = typer.Option("aws", "--partition", help="aws, aws-us-gov or aws-cn."),
) -> None:
    """Print the IAM policy that a user of `ragcun aws` needs: the smallest that lets every command work.

    An administrator also makes the boundary, once: the user's policy allows no role without it.
    Example: ragcun aws policy --account 123456789012 > ragcun-policy.json
    """
    from ragcun_cli.aws.calls import GLOBAL_REGIONS
    from ragcun_cli.aws.policy import boundary_policy, caller_policy

    if account is not None and not re.fullmatch(r"[0-9]{12}", account):
        raise UsageError(f"--account {account}: an account number has 12 digits")
    if bucket is not None:
        require_bucket_name(bucket)
    if account is None:
        note("Put your account number in place of ACCOUNT: --account NUMBER does.")
    if partition not in GLOBAL_REGIONS:
        raise UsageError(f"--partition {partition}: choose from {', '.join(GLOBAL_REGIONS)}")
    print_document((boundary_policy if boundary else caller_policy)(account, bucket, partition))
