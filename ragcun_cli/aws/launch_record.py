"""launch.json: what a run was launched with, and every attempt at it; and status.json: what its machine says.

Both come from a bucket that others can write to: they are validated before anything is done with them. The machine's
role may write status.json, but not launch.json.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from ragcun_cli.errors import DataError
from ragcun_cli.safe_paths import require_safe_name

Format = Literal[2]
FORMAT: Format = 2
LAUNCH_FILE, STATUS_FILE = "launch.json", "status.json"
SHOWN_PROBLEMS = 3

# States in status.json. A run in one of the last four is not resumed automatically.
State = Literal["running", "interrupted", "finished", "failed", "idle", "out-of-time"]
RUNNING: State = "running"
INTERRUPTED: State = "interrupted"
FINISHED: State = "finished"
FAILED: State = "failed"
IDLE: State = "idle"
OUT_OF_TIME: State = "out-of-time"
ENDED = (FINISHED, FAILED, IDLE, OUT_OF_TIME)


def _safe(name: str) -> str:
    require_safe_name(name)
    return name


def _whole_time(text: str) -> str:
    if datetime.datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("it has no time zone")
    return text


Key = Annotated[str, AfterValidator(_safe)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Region = Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")]
Moment = Annotated[str, AfterValidator(_whole_time)]
Word = Annotated[str, Field(max_length=200)]
Sentence = Annotated[str, Field(max_length=2000)]
Precision = Literal["float32", "bf16", "fp16"]
Hours = Annotated[float, Field(gt=0, le=720)]


@dataclass(frozen=True)
class LaunchRequest:
    """What the command line asks for, except the job itself. regions: tried in this order; the first has the bucket.

    max_hours: for the whole run, across all its machines. max_cost: in dollars, only compared with the plan. subnets,
    security_group: existing ones, in place of the default VPC's and of one that the launch creates.
    """

    run: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
    instance: Annotated[str, Field(pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$")]
    regions: Annotated[tuple[Region, ...], Field(min_length=1)]
    on_demand: bool = False
    nodes: Annotated[int, Field(ge=1)] = 1
    max_hours: Hours = 24.0
    max_cost: Annotated[float, Field(gt=0)] | None = None
    idle_minutes: Annotated[int, Field(ge=1)] = 30
    disk: Annotated[int, Field(ge=30, le=16384)] | None = None
    bucket: Word | None = None
    image: Word | None = None
    email: Word | None = None
    triples_per_second: Annotated[float, Field(gt=0)] | None = None
    subnets: tuple[Annotated[str, Field(pattern=r"^subnet-[0-9a-f]+$")], ...] = ()
    security_group: Annotated[str, Field(pattern=r"^sg-[0-9a-f]+$")] | None = None

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Attempt:
    """One request for a run's machines. region, zone, instances and price are empty until they start.

    instances: recorded once a schedule ends each of them; a machine that is not listed does no work. gpus, cache_gib:
    of one machine.
    """

    number: Annotated[int, Field(ge=1)]
    region: Region | Literal[""]
    zone: Word
    instances: tuple[Annotated[str, Field(pattern=r"^i-[0-9a-f]+$")], ...]
    dollars_per_hour: Annotated[float, Field(ge=0)] | None
    started: Moment
    end: Moment
    gpus: Annotated[int, Field(ge=0)] = 0
    cache_gib: Annotated[int, Field(ge=1)] = 10
    ended: Moment | None = None

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class CodeIdentity:
    """The code that machines run. commit: the checkout's; changed: files that differ from it."""

    sha256: Digest
    commit: Word
    changed: tuple[Sentence, ...]

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class LaunchRecord:
    """A run. recipes, inputs: sha256 of each object, by key. work: each recipe's digest without its backup address.

    terminated: when `aws terminate` was asked for, so that nobody starts another machine meanwhile.
    """

    format: Format
    run: Word
    id: Word
    account: Annotated[str, Field(pattern=r"^[0-9]{12}$")]
    created: Moment
    wishes: LaunchRequest
    code: CodeIdentity
    recipes: dict[Key, Digest]
    work: dict[Word, Digest]
    inputs: dict[Key, Digest]
    base_models: tuple[Word, ...]
    seeds: tuple[int, ...]
    datasets: Sentence
    downloads: tuple[Word, ...]
    precision: Precision
    triples: dict[Word, int | None]
    attempts: tuple[Attempt, ...] = ()
    terminated: Moment | None = None

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def as_json(self) -> dict[str, Any]:
        """Return the content of launch.json."""
        return dataclasses.asdict(self)

    @property
    def last_attempt(self) -> Attempt | None:
        """The newest attempt, or None before the first."""
        return self.attempts[-1] if self.attempts else None

    def with_attempts(self, attempts: Sequence[Attempt]) -> LaunchRecord:
        """Return the record with other attempts."""
        return dataclasses.replace(self, attempts=tuple(attempts))


@dataclass(frozen=True)
class TrainingState:
    """How one training stands, as its machine says."""

    name: Word
    state: Word = "?"
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    best_score: float | None = None
    triples_per_second: float | None = None


@dataclass(frozen=True)
class MachineStatus:
    """What a run's machine says of it. Nothing is decided by the times in here: a machine may say what it likes."""

    state: State
    attempt: Annotated[int, Field(ge=1)]
    stage: Word = ""
    reason: Sentence = ""
    exit_code: int | None = None
    instance: Word = ""
    updated: Word = ""
    trainings: Annotated[tuple[TrainingState, ...], Field(max_length=1000)] = ()
    datasets_done: Annotated[tuple[Word, ...], Field(max_length=100_000)] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the content of status.json."""
        return dataclasses.asdict(self)


_LAUNCH: TypeAdapter[LaunchRecord] = TypeAdapter(LaunchRecord)
_STATUS: TypeAdapter[MachineStatus] = TypeAdapter(MachineStatus)
_TRAINING: TypeAdapter[TrainingState] = TypeAdapter(TrainingState)


def parse_launch(content: bytes, where: str) -> LaunchRecord:
    """Parse launch.json.

    Raises:
        DataError: naming what is wrong.
    """
    try:
        return _LAUNCH.validate_json(content)
    except (ValidationError, RecursionError) as error:
        raise DataError(
            f"{where}: not a launch record: {_problems(error)}",
            "`ragcun aws terminate` ends its machines all the same.",
        ) from None


def parse_status(content: bytes) -> MachineStatus | str:
    """Parse status.json, or return what is wrong with it. A training that cannot be read is left out."""
    try:
        raw = json.loads(content)
        if isinstance(raw, dict) and isinstance(raw.get("trainings"), list):
            raw["trainings"] = [each for each in raw["trainings"] if _is_training(each)]
        return _STATUS.validate_python(raw)
    except (ValueError, RecursionError) as error:
        return _problems(error) if isinstance(error, ValidationError | RecursionError) else f"not JSON: {error}"


def _is_training(entry: Any) -> bool:
    try:
        _TRAINING.validate_python(entry)
    except (ValidationError, RecursionError):
        return False
    return True


def _problems(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    found = [
        f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}"
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    more = f" and {len(found) - SHOWN_PROBLEMS} more" if len(found) > SHOWN_PROBLEMS else ""
    return "; ".join(found[:SHOWN_PROBLEMS]) + more


def as_time(text: str) -> datetime.datetime:
    """Parse what `isoformat` wrote."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def now() -> datetime.datetime:
    """Return the current time in UTC, in whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
