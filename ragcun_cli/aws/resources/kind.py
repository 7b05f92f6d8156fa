"""What every kind of resource has in common: how it is created, compared, found, removed and named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from ragcun_cli.aws.calls import Aws
from ragcun_cli.aws.launch_record import Attempt
from ragcun_cli.aws.plan import LaunchPlan, RegionPlan


class Where(Enum):
    """Where resources of a kind are: once in the account, in the bucket's region, or in each region that is tried."""

    ACCOUNT = "account"
    HOME = "home"
    REGION = "region"


@dataclass
class Making:
    """A launch in progress: what the parts are made from, and what was made so far. region: of the parts by region.

    code: the archive's sha256. answer_lost: whether AWS may have started machines although its answer did not arrive.
    """

    aws: Aws
    plan: LaunchPlan
    attempt: Attempt
    code: str
    region: RegionPlan | None = None
    group: str = ""
    template: str = ""
    instances: list[str] = field(default_factory=list)
    answer_lost: bool = False

    @property
    def place(self) -> RegionPlan:
        """The region of the parts by region."""
        assert self.region is not None
        return self.region


@dataclass(frozen=True)
class Found:
    """One resource. id: what AWS calls it; region: empty for those of the whole account; state: if it has one."""

    kind: str
    id: str
    region: str
    run: str
    state: str = ""


def _always(plan: LaunchPlan) -> bool:
    return True


@dataclass(frozen=True)
class Kind:
    """One kind of resource. The functions get AWS and what they need; removals ignore what does not exist.

    create: returns the ids of what it made, or of what was there and is as it must be. find: yields those of a run in
    a region, by tag or name; of every run, if the run is None. undo: removes what a failed launch has made; by default
    whatever `find` finds. wanted: whether a launch of this plan makes any. costs: whether it is billed by the hour.
    serves_machines: whether a machine that still runs needs it, if only to be ended.
    """

    name: str
    where: Where
    called: Callable[[str], str]  # from the run's name
    find: Callable[[Aws, str, str | None], Iterable[Found]]
    remove: Callable[[Aws, Found], object]
    create: Callable[[Making], Sequence[str]] | None = None
    undo: Callable[[Making], object] | None = None
    wanted: Callable[[LaunchPlan], bool] = _always
    costs: bool = False
    serves_machines: bool = False

    def described(self, run: str, region: str) -> str:
        """Name a run's resource of this kind, for messages."""
        place = f" in {region}" if self.where is Where.REGION else ""
        return f"{self.name} {self.called(run)}{place}"
