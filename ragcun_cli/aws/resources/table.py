"""The table of everything that a run has on AWS, besides its objects; creation, removal and `gc` go through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.resources.budget import BUDGET
from ragcun_cli.aws.resources.disks import DISKS
from ragcun_cli.aws.resources.iam import DEADLINE_ROLE, PROFILE, ROLE
from ragcun_cli.aws.resources.kind import Found, Kind, Making, Where
from ragcun_cli.aws.resources.logs import LOG_GROUP
from ragcun_cli.aws.resources.machines import MACHINES, SECONDS_TO_APPEAR, end_machines
from ragcun_cli.aws.resources.network import PLACEMENT_GROUP, SECURITY_GROUP
from ragcun_cli.aws.resources.schedules import SCHEDULES
from ragcun_cli.aws.resources.template import LAUNCH_TEMPLATE
from ragcun_cli.aws.rollback import STILL_NEEDED, Orphan, Rollback

# In the order in which a launch creates them: once per run, then in each region that is tried.
KINDS = (
    LOG_GROUP, ROLE, DEADLINE_ROLE, PROFILE, BUDGET,
    SECURITY_GROUP, PLACEMENT_GROUP, LAUNCH_TEMPLATE, MACHINES, SCHEDULES, DISKS,
)  # fmt: skip
# Machines first: what ends them, and what they need, stays until they are gone.
IN_ORDER_OF_REMOVAL = (MACHINES, *(kind for kind in reversed(KINDS) if kind is not MACHINES))


def create(making: Making, where: tuple[Where, ...], rollback: Rollback) -> None:
    """Create what the launch needs of the kinds at these places, and register each part's removal before that.

    Raises:
        NoMachine: if there is no capacity.
        AwsError: if AWS refuses something.
        UsageError: if something of this name is there that is not as it must be.
    """
    for kind in KINDS:
        if kind.where in where and kind.create is not None and kind.wanted(making.plan):
            rollback.add(
                kind.described(making.plan.run, making.region.name if making.region else ""),
                # A run that is continued has results to keep.
                cure(making.plan.run) + (" --keep-bucket" if making.attempt.number > 1 else ""),
                partial(_undo, kind, making),
                ends_machines=kind is MACHINES,
                serves_machines=kind.serves_machines,
            )
            kind.create(making)


def _undo(kind: Kind, making: Making) -> None:
    if kind.undo is not None:
        kind.undo(making)
        return
    region = making.plan.home if kind.where is Where.HOME else making.region.name if making.region else ""
    for found in kind.find(making.aws, region, making.plan.run):
        kind.remove(making.aws, found)


def cure(run: str) -> str:
    """Return the command that removes what is left of a run."""
    return f"ragcun aws terminate {run}"


def remove_run(
    aws: Aws,
    run: str,
    home: str,
    regions: Sequence[str],
    may_have_budget: bool = True,
    instances: Mapping[str, Sequence[str]] | None = None,
    unlisted: Mapping[str, Sequence[str]] | None = None,
) -> list[Orphan]:
    """Remove everything but the objects, machines first; return what could not be removed.

    instances, unlisted: as `also` and `unlisted` of `end_machines`, by region. If machines cannot be ended, what ends
    them, and what they need, stays.
    """
    left: list[Orphan] = []
    for region in regions:
        try:
            also, new = ((by or {}).get(region, ()) for by in (instances, unlisted))
            end_machines(aws, run, region, also=also, unlisted=new, patience=SECONDS_TO_APPEAR if new else 0.0)
        except AwsError as error:
            left.append(Orphan(MACHINES.described(run, region), error.message, cure(run), is_machine=True))
    machines_ended = not left
    for kind in IN_ORDER_OF_REMOVAL[1:]:
        if kind is BUDGET and not may_have_budget:
            continue  # not asked for: many users may not see billing
        if kind.serves_machines and not machines_ended:
            left.append(Orphan(kind.described(run, ""), STILL_NEEDED, cure(run)))
            continue
        for region in {Where.ACCOUNT: [""], Where.HOME: [home], Where.REGION: regions}[kind.where]:
            try:
                for found in kind.find(aws, region, run):
                    kind.remove(aws, found)
            except AwsError as error:
                left.append(Orphan(kind.described(run, region), error.message, cure(run)))
    return left


@dataclass(frozen=True)
class Unread:
    """A kind that could not be listed in a region (empty for those of the whole account), and why."""

    kind: str
    region: str
    reason: str


def find_all(aws: Aws, regions: list[str]) -> tuple[list[Found], list[Unread]]:
    """Return what the account has of every run, in the order of removal, and what could not be listed."""
    found: list[Found] = []
    unread: list[Unread] = []
    for kind in IN_ORDER_OF_REMOVAL:
        for region in [""] if kind.where is Where.ACCOUNT else regions:
            try:
                found += kind.find(aws, region, None)
            except AwsError as error:
                unread.append(Unread(kind.name, region, error.message))
    return found, unread


def remove_found(aws: Aws, found: list[Found]) -> list[Orphan]:
    """Remove what `find_all` found; return what could not be removed. What serves a machine stays with it."""
    left: list[Orphan] = []
    with_machines: set[str] = set()
    for each in found:
        kind, what = kind_of(each), f"{each.kind} {each.id} {each.region}".strip()
        if kind.serves_machines and each.run in with_machines:
            left.append(Orphan(what, STILL_NEEDED, "ragcun aws gc --delete"))
            continue
        try:
            kind.remove(aws, each)
        except AwsError as error:
            left.append(Orphan(what, error.message, "ragcun aws gc --delete"))
            if kind is MACHINES:
                with_machines.add(each.run)
    return left


def kind_of(found: Found) -> Kind:
    """Return the kind of a resource that was found."""
    return next(kind for kind in KINDS if kind.name == found.kind)


def machines_of(found: list[Found]) -> Iterator[Found]:
    """Yield the machines among what was found."""
    return (each for each in found if each.kind == MACHINES.name)
