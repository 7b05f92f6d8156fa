"""A machine of EC2's on this one: its user data run by bash in a folder, with a metadata service and a bucket of ours.

Two programs are not the real ones: `shutdown`, which writes down what it was asked and, for a shutdown now, ends the
script as the real one would; and `python3`, whose new environments see the packages of this one, so that pip finds
them installed instead of fetching them again.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3

from ragcun_cli.aws.launch_record import Attempt
from tests.aws.every_command import end_machines
from tests.faults.metadata_service import MetadataServer

SHUTDOWN = """#!/bin/bash
echo "$@" >> "{record}"
if [ "$2" = now ]; then sleep 0.5; kill -KILL -- -"$(ps -o pgid= -p $$ | tr -d ' ')"; fi
"""
PYTHON = """#!/bin/sh
"{python}" "$@" || exit
if [ "$1 $2" = "-m venv" ]; then for folder in "$3"/lib/python*/site-packages; do
    echo "{packages}" > "$folder/of-the-tests.pth"
done; fi
"""


class Computer:
    """One machine, from its user data to its shutdown."""

    def __init__(
        self, folder: Path, attempt: Attempt, endpoint: str, metadata: str | None = None, patience: int = 900
    ) -> None:
        """metadata: address of another metadata service; patience: seconds for launch.json to name the machine."""
        self.attempt = attempt
        self.work = folder / f"machine-{attempt.number}"
        self.root = folder / f"root-{attempt.number}"
        self.shutdowns = folder / f"shutdowns-{attempt.number}"
        self.metadata = MetadataServer()
        self.metadata.about = {
            "instance-id": attempt.instances[0],
            "local-ipv4": "127.0.0.1",
            "placement/region": attempt.region,
        }
        programs = folder / f"programs-{attempt.number}"
        programs.mkdir(parents=True)
        _write_program(programs / "shutdown", SHUTDOWN.format(record=self.shutdowns))
        packages = sysconfig.get_path("purelib")
        _write_program(programs / "python3", PYTHON.format(python=sys.executable, packages=packages))
        script = folder / f"user-data-{attempt.number}.sh"
        script.write_text(user_data(attempt).replace("recorded=900", f"recorded={patience}"), encoding="utf-8")
        self.output = folder / f"console-{attempt.number}.txt"
        with self.output.open("wb") as console:
            self.process = subprocess.Popen(
                ["bash", str(script)],
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={
                    "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
                    "HOME": str(folder),
                    "RAGCUN_WORK": str(self.work),
                    "RAGCUN_ROOT": str(self.root),
                    "AWS_ACCESS_KEY_ID": "testing",
                    "AWS_SECRET_ACCESS_KEY": "testing",
                    "AWS_ENDPOINT_URL": endpoint,
                    "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata or self.metadata.address,
                    **{name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "SSL_", "REQUESTS_"))},
                },
            )

    def wait_for(self, condition: Callable[[], object], seconds: float) -> None:
        """Until it holds, or the machine has ended before."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def finish(self, seconds: float) -> None:
        """Until the machine has shut itself down."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            raise AssertionError(self.said()) from None
        assert self.shutdowns.read_text().splitlines()[-1] == "-h now", self.said()
        end_machines("Client.InstanceInitiatedShutdown", "it shut itself down", self.attempt.region)

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")[-6000:]


def user_data(attempt: Attempt) -> str:
    """What the launch template gives the machine."""
    ec2 = boto3.client("ec2", region_name=attempt.region)
    templates = ec2.describe_launch_templates()["LaunchTemplates"]
    versions: list[dict[str, Any]] = ec2.describe_launch_template_versions(
        LaunchTemplateId=templates[0]["LaunchTemplateId"]
    )["LaunchTemplateVersions"]
    return base64.b64decode(versions[-1]["LaunchTemplateData"]["UserData"]).decode()


def _write_program(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    path.chmod(0o755)
