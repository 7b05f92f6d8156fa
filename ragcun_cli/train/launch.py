"""One command, several processes: a worker for each device, on this machine or on each of several.

The command's own process does not train: it starts torch.distributed.run, forwards signals to the workers,
and turns what they leave behind into the errors and exit codes of a single-process run.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import psutil

from ragcun_cli import files
from ragcun_cli.console import note
from ragcun_cli.environment import TYPED_COMMAND, command_line
from ragcun_cli.errors import EnvironmentUnfit, ExitCode, Interrupted, RagcunError, UsageError
from ragcun_cli.processes import POLL_SECONDS, Child, threads_each
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import RunFolder
from ragcun_cli.runs.status import FAILED, INTERRUPTED, RUNNING, ArmSummary, Status
from ragcun_cli.train.outcome import FAILURES, LAUNCH_FOLDER, read_outcomes, summary_of
from ragcun_cli.train.stopping import SAVING, handled_by, restore

WORKER = "ragcun_cli.train.worker"
LAUNCH_PREFIX = "ragcun-launch-"
ENDING = b"\nragcun: asked to stop; saving after this step.\n"
# How long torch.distributed.run waits between SIGTERM and SIGKILL when it ends the workers (30 s by default), and how
# long we wait for workers whose agent was killed: a step, a 10 GB checkpoint at 0.2 GB/s, the backup's last minute.
SHUTDOWN_SECONDS = 180
RESTARTS = 3  # of an elastic group: each lost machine costs one, and so does an error that recurs
SHOWN_LINES = 15  # of the traceback of a worker that failed


@dataclass(frozen=True)
class Placement:
    """Where workers run.

    processes: how many on this machine. nodes: number of machines, or `MIN:MAX`. node_rank, master: for a fixed group,
    this machine's number and machine 0's address, HOST:PORT. rendezvous: where an elastic group's machines meet.
    """

    processes: int = 1
    nodes: str = "1"
    node_rank: int | None = None
    master: str | None = None
    rendezvous: str | None = None

    @property
    def is_single(self) -> bool:
        """Whether one process does it all."""
        return self.processes == 1 and self.nodes == "1"


def plan_placement(
    processes: int | None,
    nodes: str,
    node_rank: int | None,
    master: str | None,
    rendezvous: str | None,
    gpus: int,
    overwrite: bool = False,
) -> Placement:
    """Return the placement that the command line asks for, on a machine with `gpus` GPUs.

    Raises:
        UsageError: if the flags contradict each other.
        EnvironmentUnfit: if there are fewer GPUs than processes.
    """
    if processes is not None and gpus and processes > gpus:
        raise EnvironmentUnfit(f"--processes {processes}: this machine has {gpus} GPUs", f"Use --processes {gpus}.")
    placement = Placement(processes or max(gpus, 1), nodes, node_rank, master, rendezvous)
    lowest, highest = _node_range(nodes)
    if lowest == highest == 1:
        if any(each is not None for each in (node_rank, master, rendezvous)):
            raise UsageError("--node-rank, --master and --rendezvous are for several machines", "Add --nodes N.")
        return placement
    if rendezvous is not None:
        if overwrite:
            raise UsageError(
                "--overwrite and --rendezvous cannot be combined: a machine that joins later would delete the run",
                "Remove the run folder first, or use another one: --set output_dir=FOLDER",
            )
        if master is not None or node_rank is not None:
            raise UsageError("--rendezvous and --master cannot be combined", "--rendezvous numbers machines itself.")
        _host_and_port("--rendezvous", rendezvous)
        return placement
    if lowest != highest:
        raise UsageError(f"--nodes {nodes}: a varying number of machines needs --rendezvous HOST:PORT")
    if node_rank is None or master is None:
        raise UsageError(
            f"--nodes {nodes}: give --node-rank R and --master HOST:PORT on each machine, or --rendezvous HOST:PORT",
            "R is 0 on the machine HOST, 1 on the next, and so on.",
        )
    if not 0 <= node_rank < highest:
        raise UsageError(f"--node-rank {node_rank}: {nodes} machines are numbered 0 to {highest - 1}")
    _host_and_port("--master", master)
    return placement


def agent_command(placement: Placement, run: str, job: Path, worker: str = WORKER) -> list[str]:
    """Return the torch.distributed.run command. run: a name shared by all machines."""
    command = [sys.executable, "-m", "ragcun_cli.train.agent", f"--nproc-per-node={placement.processes}"]
    if placement.rendezvous is not None:
        command += _elastic(placement, run)
    elif placement.master is not None:
        host, port = _host_and_port("--master", placement.master)
        command += [
            f"--nnodes={placement.nodes}",
            f"--node-rank={placement.node_rank}",
            f"--master-addr={host}",
            f"--master-port={port}",
        ]
    else:
        command += ["--standalone"]
    return [*command, "-m", worker, str(job)]


def launch(
    recipe: Recipe,
    placement: Placement,
    *,
    resume: bool = False,
    overwrite: bool = False,
    deadline: float | None = None,
    worker: str = WORKER,
) -> ArmSummary:
    """Run `train_arm` in several processes.

    Raises:
        KeyboardInterrupt: after a second Ctrl-C; the processes are killed.
        RagcunError: as `train_arm`; or if a worker was killed.
    """
    _sweep_launches()
    if placement.nodes != "1":
        address = placement.master or placement.rendezvous
        note(f"Waiting for {placement.nodes} machines to meet at {address}. Ctrl-C ends the wait.")
    with tempfile.TemporaryDirectory(prefix=f"{LAUNCH_PREFIX}{os.getpid()}-") as name:
        folder = Path(name)
        held = os.open(folder, os.O_RDONLY)  # for as long as this process lives
        fcntl.flock(held, fcntl.LOCK_EX)
        # A machine that joins an elastic group may become rank 0 and then finds the run that the others began.
        goes_on = resume or placement.rendezvous is not None
        job = {"recipe": recipe.model_dump(), "resume": goes_on, "overwrite": overwrite, "deadline": deadline}
        files.write_json(folder / "job.json", job)
        command = agent_command(placement, RunFolder.of(recipe).root.name, folder / "job.json", worker)
        status = _Status(RunFolder.of(recipe), time.time())
        environment = _environment(placement, folder)
        try:
            with Child(command, environment) as agent, _Forwarding(agent) as forwarding:
                forwarding.wait()
        except KeyboardInterrupt:
            status.correct(INTERRUPTED, "a second Ctrl-C", ExitCode.CTRL_C)
            raise
        try:
            return _ending(folder, forwarding.stopped)
        except Interrupted:
            raise
        except RagcunError as error:
            status.correct(FAILED, error.message, error.exit_code)
            _keep_logs(folder, RunFolder.of(recipe))
            raise


def _sweep_launches() -> None:
    """Remove the folders of launches that were killed.

    A lock tells, not a process id: containers that share /tmp have ids of their own.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{LAUNCH_PREFIX}*-*"):
        with contextlib.suppress(OSError):  # of another user, or removed meanwhile
            descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)


def _keep_logs(folder: Path, run: RunFolder) -> None:
    """Copy what workers without a terminal wrote, such as NCCL warnings, into the run folder, if there is one."""
    logs = [path for path in folder.glob("rank-*.log") if path.stat().st_size]
    if logs and run.recipe.is_file():
        run.worker_logs.mkdir(exist_ok=True)
        for path in logs:
            shutil.copyfile(path, run.worker_logs / path.name)


@dataclass(frozen=True)
class _Status:
    """Corrects the status.json of this launch if its first worker could not record how the run ended."""

    folder: RunFolder
    started: float

    def correct(self, state: str, reason: str, exit_code: ExitCode) -> None:
        """Rewrite the status unless it is from an earlier launch or already says how the run was saved."""
        status = Status.find(self.folder.status)
        with contextlib.suppress(OSError):
            if status is None or self.folder.status.stat().st_mtime < self.started:
                return
            if status.state in (RUNNING, FAILED):
                replace(status, state=state, exit_reason=reason, exit_code=int(exit_code)).write(self.folder.status)


def _ending(folder: Path, was_stopped: bool) -> ArmSummary:
    outcomes = read_outcomes(folder)
    summary = summary_of(outcomes)
    if summary is not None:
        return summary
    known = [error for error in (outcome.error() for outcome in outcomes) if error is not None]
    # A failed worker takes the others down, whose errors only say that it is gone: its own error is the cause.
    causes = [error for error in known if not isinstance(error, Interrupted)]
    if causes or known:
        raise (causes or known)[0]
    cause, signalled = _cause_outside(folder)
    if was_stopped and signalled != signal.SIGKILL and not any(outcome.trace for outcome in outcomes):
        raise Interrupted("stopped before any step was trained", "The same command with --resume continues.")
    if not cause and outcomes:
        note("\n".join(outcomes[0].trace.splitlines()[-SHOWN_LINES:]))
    said = f"worker {outcomes[0].rank}: {outcomes[0].message}" if outcomes else "the workers ended silently"
    raise RagcunError(cause or said, "The same command with --resume continues from the last checkpoint.")


def _cause_outside(folder: Path) -> tuple[str, int | None]:
    """Say which worker was killed and by which signal, or why none started; empty if the workers' own errors tell."""
    with contextlib.suppress(OSError, ValueError):
        failures = json.loads((folder / FAILURES).read_text(encoding="utf-8"))
        if failures["error"]:
            return f"the processes could not connect: {failures['error']}", None
        killed = [each for each in failures["workers"] if each["exit_code"] < 0]
        if killed:
            number = signal.Signals(-killed[0]["exit_code"])
            memory = ", which the system sends when memory runs out" if number == signal.SIGKILL else ""
            return f"worker {killed[0]['rank']} was killed by {number.name}{memory}", number
    return "", None


class _Forwarding:
    """A `with` block that forwards signals to the workers; a second Ctrl-C kills everything at once.

    They go to the workers, not to torch's agent: it gives workers 30 seconds, before torch 2.12 whatever is set.
    """

    def __init__(self, agent: Child) -> None:
        self._agent = agent
        self._sent: list[int] = []

    @property
    def stopped(self) -> bool:
        """Whether a signal has arrived."""
        return bool(self._sent)

    def __enter__(self) -> _Forwarding:
        self._before = handled_by(self._forward)
        return self

    def __exit__(self, *_: object) -> None:
        restore(self._before)

    def wait(self) -> None:
        """Wait until the agent and, if it is killed, its workers have ended: they save first."""
        while self._agent.poll() is None:
            self._agent.descendants()  # remembered, for when the agent is gone
            self._agent.wait(POLL_SECONDS)
        psutil.wait_procs(self._agent.descendants(), timeout=SHUTDOWN_SECONDS)

    def _forward(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in self._sent:
            raise KeyboardInterrupt
        self._sent.append(number)
        workers = [each for each in self._agent.descendants() if _is_worker(each)]
        if not workers:
            # While it waits for other machines, torch's agent handles no signals; and there is nothing to save.
            return self._agent.send(signal.SIGKILL)
        with contextlib.suppress(OSError):  # if nobody reads the log any more
            os.write(2, SAVING if number == signal.SIGINT else ENDING)
        for process in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return None


def _is_worker(process: psutil.Process) -> bool:
    """Whether a process is a worker itself, not something that a worker started."""
    with contextlib.suppress(ProcessLookupError):  # the agent gives each worker its own session
        return os.getsid(process.pid) == process.pid
    return False


def _environment(placement: Placement, folder: Path) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": threads_each(placement.processes),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS),
        TYPED_COMMAND: command_line(),
        LAUNCH_FOLDER: str(folder),
    }


def _node_range(nodes: str) -> tuple[int, int]:
    lowest, _, highest = nodes.partition(":")
    if not (lowest.isdigit() and (highest or lowest).isdigit() and 1 <= int(lowest) <= int(highest or lowest)):
        raise UsageError(f"--nodes {nodes}: expected a number of machines, or MIN:MAX with MIN <= MAX, such as 1:4")
    return int(lowest), int(highest or lowest)


def _host_and_port(flag: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise UsageError(f"{flag} {address}: expected HOST:PORT, such as 10.0.0.1:29500")
    return host.strip("[]"), int(port)


def _elastic(placement: Placement, run: str) -> Sequence[str]:
    assert placement.rendezvous is not None
    host, _ = _host_and_port("--rendezvous", placement.rendezvous)
    flags = [
        f"--nnodes={placement.nodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={placement.rendezvous}",
        f"--rdzv-id={run}",
        f"--max-restarts={RESTARTS}",
    ]
    # By default a machine does not recognise its own IP address as the meeting point, and tells the others a host
    # name that may resolve to their own loopback: both sides wait for a minute and give up.
    own, meeting = _own_address_towards(host), _resolved(host)
    if not ipaddress.ip_address(meeting).is_loopback:
        flags += [f"--local-addr={own}", f"--rdzv-conf=is_host={str(own == meeting).lower()}"]
    return flags


def _resolved(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None)[0][4][0])
    except OSError as error:
        raise UsageError(f"--rendezvous {host}: {error.strerror or error}", "Is the host name right?") from None


def _own_address_towards(host: str) -> str:
    """The address of the interface that reaches `host`; nothing is sent."""
    resolved = _resolved(host)
    family = socket.AF_INET6 if ":" in resolved else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((resolved, 9))
        except OSError as error:
            raise UsageError(
                f"--rendezvous {host}: {error.strerror or error}", "Is that host reachable from here?"
            ) from None
        return str(probe.getsockname()[0])
