"""This machine's part in a run: where the run is, from user data; what it is, from its validated launch record."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.aws.calls import Aws, open_session
from ragcun_cli.aws.launch_record import Attempt, LaunchRecord
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.errors import DataError


@dataclass(frozen=True)
class MachineContext:
    """One machine of one attempt. folder: where it works; cache: what can be recomputed."""

    record: RunRecord
    launch: LaunchRecord
    attempt: Attempt
    instance: str
    address: str
    folder: Path
    cache: Path

    @classmethod
    def read(cls) -> MachineContext:
        """Read what boot.sh exports, and launch.json with the machine's role.

        Raises:
            DataError: if there is no launch record, or it does not name this machine.
        """
        record = RunRecord(
            Aws(open_session(None)),
            os.environ["RAGCUN_ACCOUNT"],
            os.environ["RAGCUN_BUCKET"],
            os.environ["AWS_DEFAULT_REGION"],
            os.environ["RAGCUN_RUN"],
        )
        launch, number, instance = record.launch(), int(os.environ["RAGCUN_ATTEMPT"]), os.environ["RAGCUN_INSTANCE"]
        if launch is None:
            raise DataError(f"{record.address}: launch.json is missing")
        attempt = next((each for each in launch.attempts if each.number == number), None)
        if attempt is None or instance not in attempt.instances:
            raise DataError(f"{record.address}: launch.json does not name {instance} for attempt {number}")
        return cls(
            record=record,
            launch=launch,
            attempt=attempt,
            instance=instance,
            address=os.environ["RAGCUN_ADDRESS"],
            folder=Path(),
            cache=Path(os.environ["RAGCUN_CACHE"]),
        )

    @property
    def nodes(self) -> int:
        """How many machines share the run."""
        return self.launch.wishes.nodes

    @property
    def log(self) -> Path:
        """The machine's log, which boot.sh began."""
        return self.folder / "logs" / f"{self.attempt.number}-{self.instance}.log"
