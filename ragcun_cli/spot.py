"""Watch for EC2's two-minute spot interruption notice in the machine's metadata service (IMDSv2).

AWS advises polling every five seconds. AWS's own variable
AWS_EC2_METADATA_SERVICE_ENDPOINT sets the address, and AWS_EC2_METADATA_DISABLED turns this off.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import requests

ADDRESS = "http://169.254.169.254"
NOTICE = "/latest/meta-data/spot/instance-action"
POLL_SECONDS = 5.0  # AWS advises to ask for the notice this often; its other answers change no faster
SECONDS_TO_ANSWER = 2.0
TOKEN_SECONDS = 21_600
# How these Linux files begin on EC2: on current machines, and on older ones under Xen.
MARKS = {Path("/sys/class/dmi/id/sys_vendor"): "amazon ec2", Path("/sys/hypervisor/uuid"): "ec2"}


class MetadataService:
    """Reads a machine's metadata with a session token, which it renews."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy would return its own machine's metadata
        self._token = ""

    def read(self, path: str) -> str | None:
        """Return the text at `path`, or None if there is none.

        Raises:
            OSError: if the service does not answer or refuses.
        """
        for _ in range(2):
            if not self._token:
                self._token = self._call(
                    "PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS
                )
            answer = self._session.get(
                self._address + path, headers={"X-aws-ec2-metadata-token": self._token}, timeout=SECONDS_TO_ANSWER
            )
            if answer.status_code == requests.codes.not_found:
                return None
            if answer.status_code != requests.codes.unauthorized:
                answer.raise_for_status()
                return answer.text
            self._token = ""
        raise PermissionError(f"{self._address}: the metadata service refuses its own tokens")

    def _call(self, method: str, path: str, header: str, value: int) -> str:
        answer = self._session.request(
            method, self._address + path, headers={header: str(value)}, timeout=SECONDS_TO_ANSWER
        )
        answer.raise_for_status()
        return answer.text


def metadata_address() -> str | None:
    """Return the address of this machine's metadata service, or None outside EC2."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    if given := os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT"):
        return given
    for path, begins in MARKS.items():
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8").lower().startswith(begins):
                return ADDRESS
    return None


class SpotWatcher:
    """A thread that polls until there is a notice, then calls `on_notice` once with its text."""

    def __init__(self, address: str, on_notice: Callable[[str], None]) -> None:
        self._service = MetadataService(address)
        self._on_notice = on_notice
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="spot-watcher", daemon=True)

    def start(self) -> None:
        """Start polling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):  # a brief outage is not a notice
                if notice := self._service.read(NOTICE):
                    return self._on_notice(notice.strip())
            self._over.wait(POLL_SECONDS)
        return None
