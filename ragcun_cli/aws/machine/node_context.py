"""The settings that boot.sh and run.sh pass to this machine's programs in the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.aws.calls import Aws, open_session
from ragcun_cli.aws.record import RunRecord

STATE = Path("state")


@dataclass(frozen=True)
class NodeContext:
    """This machine's part in a run."""

    run: str
    account: str
    bucket: str
    region: str
    instance: str
    address: str
    attempt: int
    nodes: int
    idle_minutes: float
    end: float  # time.time() at which --max-hours runs out

    @classmethod
    def read(cls) -> NodeContext:
        """Read the settings from the environment."""
        return cls(
            run=os.environ["RAGCUN_RUN"],
            account=os.environ["RAGCUN_ACCOUNT"],
            bucket=os.environ["RAGCUN_BUCKET"],
            region=os.environ["AWS_DEFAULT_REGION"],
            instance=os.environ["RAGCUN_INSTANCE"],
            address=os.environ["RAGCUN_ADDRESS"],
            attempt=int(os.environ["RAGCUN_ATTEMPT"]),
            nodes=int(os.environ["RAGCUN_NODES"]),
            idle_minutes=float(os.environ["RAGCUN_IDLE_MINUTES"]),
            end=float(os.environ["RAGCUN_END"]),
        )

    def record(self) -> RunRecord:
        """Return the run's record, accessed with the machine's role."""
        return RunRecord(Aws(open_session(None)), self.account, self.bucket, self.region, self.run)
