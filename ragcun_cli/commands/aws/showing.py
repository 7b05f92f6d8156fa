"""Show runs, plans and attempts. What a machine says is escaped: it may send a terminal's control characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ragcun_cli.console import (
    Column,
    note,
    plain,
    print_entries,
    print_json,
    print_table,
    print_text,
    visible,
)

if TYPE_CHECKING:
    from ragcun_cli.aws.compare import Comparison
    from ragcun_cli.aws.launch_record import Attempt, TrainingState
    from ragcun_cli.aws.plan import LaunchPlan
    from ragcun_cli.aws.runs import FoundRun


RUN_COLUMNS = ("run", "state", "stage", "machine", "hours", "dollars", "trained")
INDENT = 13  # of the text beside the names in a plan's lines


def run_row(found: FoundRun) -> list[str]:
    """Return a run's cells for RUN_COLUMNS."""
    machine = next((each.type for each in found.machines), "none")
    cost, status = found.cost(), found.status
    trained = " ".join(_share(each) for each in (() if status is None else status.trainings))
    return [
        found.run, found.state(), visible(status.stage) if status else "", machine, f"{found.hours():.1f}",
        "?" if cost is None else f"{cost:.2f}", trained,
    ]  # fmt: skip


def _total(training: TrainingState) -> str:
    return "?" if training.total_steps is None else str(training.total_steps)


def _share(training: TrainingState) -> str:
    return f"{100 * training.step // training.total_steps}%" if training.total_steps else "?"


def _training(training: TrainingState) -> str:
    loss = "" if training.loss is None else f" loss {training.loss:.3f}"
    return f"{training.name} {training.step}/{_total(training)}{loss} ({training.state})"


def show_runs(runs: Sequence[FoundRun]) -> None:
    """Print a table of all runs."""
    rows = [[plain(cell) for cell in run_row(found)] for found in runs]
    print_table([Column(header) for header in RUN_COLUMNS], rows)


def show_run(found: FoundRun, json_output: bool) -> None:
    """Print everything about one run."""
    if json_output:
        return print_json(found.as_json())
    cost, status = found.cost(), found.status
    reason = found.why()
    lines = {
        "run": found.run,
        "state": found.state() + (f": {reason}" if reason else ""),
        "stage": status.stage if status is not None and status.stage else "not known yet",
        "machines": ", ".join(f"{each.id} {each.type} {each.zone} {each.state}" for each in found.machines) or "none",
        "attempts": str(len(found.launch.attempts)),
        "hours": f"{found.hours():.2f} of {found.launch.wishes.max_hours:g}",
        "cost so far": "not known" if cost is None else f"${cost:.2f} (machines, at the price when they started)",
        "last update": found.reported.received.isoformat() if found.reported.received else "not yet",
        "objects": found.record.address,
    }
    for name, value in lines.items():
        print_text(f"{name:<14} {visible(value)}")
    for training in status.trainings if status is not None else ():
        print_text(f"{'training':<14} {visible(_training(training))}")
    if status is not None and status.datasets_done:
        print_text(f"{'scored':<14} {len(status.datasets_done)} pairs of model and dataset")
    if found.reported.problem:
        note(f"What the machine said cannot be used: {found.reported.problem}")
    return None


def show_attempt(run: str, attempt: Attempt, json_output: bool) -> None:
    """Print what was started, and what to do next."""
    from ragcun_cli.aws.plan import attempt_json, latest_end

    if json_output:
        return print_json({"run": run, **attempt_json(attempt)})
    place = attempt.zone or attempt.region
    note(f"Started {', '.join(attempt.instances)} in {place}; will be ended by {latest_end(attempt)} at the latest.")
    return note(
        f"Next:  ragcun aws status {run}  |  ragcun aws logs {run} --follow  |  ragcun aws watch {run} (starts another "
        "machine if this one is reclaimed)"
    )


def show_plan(found: LaunchPlan, json_output: bool, on_stderr: bool = False) -> None:
    """Print a plan."""
    from ragcun_cli.aws.show import plan_lines

    if json_output:
        return print_json(found.as_json())
    if on_stderr:
        return note("\n".join(plan_lines(found)))
    return print_entries(plan_lines(found), INDENT)


def show_comparison(found: Sequence[Comparison], plans: Sequence[LaunchPlan], json_output: bool) -> None:
    """Print a table of machines, the cheapest that can do the job first."""
    import dataclasses

    if json_output:
        return print_json([dataclasses.asdict(each) for each in found])
    headers = ("instance", "machine", "hours", "spot", "on demand", "idle GPUs", "finishes")
    columns = [Column(header, numeric=header in headers[2:6]) for header in headers]
    print_table(columns, [_comparison_row(each) for each in found])
    for each in found:
        if each.problem:
            note(f"{each.instance}: {each.problem}")
    if best := next((each for each in found if each.is_possible), None):
        note(f"Cheapest that finishes: {best.instance}. For its plan, give --instance {best.instance}, not --compare.")
    else:
        note("None of them finishes the job as asked; the lines above say why.")
    shared = [set(plan.estimate.basis) for plan in plans]
    for basis in plans[0].estimate.basis if plans else ():
        if all(basis in each for each in shared):
            note(f"basis: {basis}")
    note("basis: calculated from data sheets: may be wrong by a factor of two. A machine's own plan shows its basis.")
    return None


def _comparison_row(each: Comparison) -> list[str]:
    return [
        each.instance, each.described, "?" if each.hours is None else f"{each.hours:.1f}", _dollars(each.spot),
        _dollars(each.on_demand), str(each.idle) if each.idle else "", "yes" if each.is_possible else "no",
    ]  # fmt: skip


def _dollars(amount: float | None) -> str:
    return "?" if amount is None else f"${amount:,.2f}"
