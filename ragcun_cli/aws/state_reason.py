"""Why EC2 says that a machine ended (StateReason), and whether another one may be started after it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

# EC2's documented reasons after which another machine would be against its owner's will, or end in the same way.
FINAL = {
    "Client.UserInitiatedShutdown": "it was ended by hand, or by another program of yours",
    "Client.UserInitiatedHibernate": "it was hibernated by hand",
    "Client.InstanceTerminated": "it was ended while an image was made of it",
    "Client.InternalError": (
        "EC2 could not start its disk; usually the account's default KMS key for disks may not be used by EC2 or by "
        "AWSServiceRoleForEC2Spot: grant it, or choose AWS's own key in EC2's settings (EBS encryption)"
    ),
    "Client.InvalidSnapshot.NotFound": "the image's snapshot was not found: choose another --image",
    "Client.VolumeLimitExceeded": "the account's limit of disk space is used up: ask for more, or give --disk GIB",
}


@dataclass(frozen=True)
class StateReason:
    """EC2's code and message, both empty if it gave none; and when the machine ended, if it says."""

    code: str = ""
    message: str = ""
    when: datetime.datetime | None = None

    @property
    def is_final(self) -> bool:
        """Whether another machine would be unwanted, or end in the same way."""
        return self.code in FINAL

    def sentence(self) -> str:
        """Return what happened, for a message; empty if EC2 does not say."""
        if not self.code:
            return ""
        return f"{FINAL[self.code]} ({self.code})" if self.is_final else f"{self.message or self.code} ({self.code})"


NO_REASON = StateReason()
