"""Show runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ragcun_cli.console import Column, plain, print_json, print_table, print_text

if TYPE_CHECKING:
    from ragcun_cli.aws.runs import FoundRun


RUN_COLUMNS = ("run", "state", "stage", "machine", "hours", "dollars", "steps")


def run_row(found: FoundRun) -> list[str]:
    """Return a run's cells for RUN_COLUMNS."""
    machine = next((f"{each.type} {each.zone}" for each in found.machines), "none")
    cost = found.cost()
    steps = [f"{each.get('step', 0)}/{each.get('total_steps', '?')}" for each in found.status.get("trainings", [])]
    return [
        found.run, found.state(), found.status.get("stage", ""), machine, f"{found.hours():.1f}",
        "?" if cost is None else f"{cost:.2f}", ", ".join(steps),
    ]  # fmt: skip


def _training(entry: dict[str, Any]) -> str:
    loss = f" loss {entry['loss']:.3f}" if isinstance(entry.get("loss"), float) else ""
    return f"{entry['name']} {entry.get('step', 0)}/{entry.get('total_steps', '?')}{loss}"


def show_runs(runs: list[FoundRun]) -> None:
    """Print a table of all runs."""
    rows = [[plain(cell) for cell in run_row(found)] for found in runs]
    print_table([Column(header, wraps=header == "steps") for header in RUN_COLUMNS], rows)


def show_run(found: FoundRun, json_output: bool) -> None:
    """Print everything about one run."""
    if json_output:
        return print_json(found.as_json())
    cost, status = found.cost(), found.status
    reason = "its machine is gone and did not say why" if found.state() == "lost" else status.get("reason")
    lines = {
        "run": found.run,
        "state": found.state() + (f": {reason}" if reason else ""),
        "stage": status.get("stage", "not known yet"),
        "machines": ", ".join(f"{each.id} {each.type} {each.zone} {each.state}" for each in found.machines) or "none",
        "attempts": str(len(found.launch["attempts"])),
        "hours": f"{found.hours():.2f} of {found.launch['wishes']['max_hours']:g}",
        "cost so far": "not known" if cost is None else f"${cost:.2f} (machines, at the price when they started)",
        "last update": status.get("updated", "not yet"),
        "objects": found.record.address,
    }
    for name, value in lines.items():
        print_text(f"{name:<14} {value}")
    for entry in status.get("trainings", []):
        print_text(f"{'training':<14} {_training(entry)} ({entry.get('state', '?')})")
    if status.get("datasets_done"):
        print_text(f"{'scored':<14} {len(status['datasets_done'])} pairs of model and dataset")
    return None
