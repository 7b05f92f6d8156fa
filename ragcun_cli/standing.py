"""Where a folder stands on the way from data to the table: read from what lies there, in a moment, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.data.sources import available_collections
from ragcun_cli.quantities import counted
from ragcun_cli.recipe.shipped import ARMS

DATA, RUNS, RESULTS = Path("data"), Path("checkpoints"), Path("results")
REPORTS = ("report.html", "table.tex", "table.md", "figures")
SHOWN = 4  # names in one line


@dataclass(frozen=True)
class Step:
    """One step of the path. done: whether something of it is here; seen: what; command: what does it."""

    name: str
    done: bool
    seen: str
    command: str


def standing(folder: Path) -> list[Step]:
    """The steps in order. Only the folders that the commands take by default are looked into."""
    runs = _runs(folder / RUNS)
    finished = [name for name, state in runs.items() if state == "finished"]
    return [
        _data(folder, bool(runs)),
        _training(runs),
        _evaluation(folder, finished),
        _report(folder),
    ]


def next_command(steps: Sequence[Step]) -> str:
    """Of the first step that is not done; the report again where all are."""
    return next((step.command for step in steps if not step.done), steps[-1].command)


def _data(folder: Path, has_trained: bool) -> Step:
    """Who has trained had data, wherever they lie."""
    from ragcun_cli.data.fetch.catalogue import entries

    place = folder / DATA
    known = entries(place) if place.is_dir() else []
    training = [each.name for each in known if each.kind == "training" and each.state not in ("", "part of it")]
    collections = available_collections(place)
    own = "the runs' own" if has_trained else "none"
    seen = f"training data: {_named(training) or own}; {counted(len(collections), 'collection')} in {DATA}/"
    return Step("data", has_trained or bool(training and collections), seen, "ragcun data download msmarco beir")


def _runs(folder: Path) -> dict[str, str]:
    """State of each run, by the name of its folder."""
    found = {}
    for status in sorted(folder.glob("*/status.json")):
        try:
            content = json.loads(status.read_text(encoding="utf-8"))
            state, step, total = str(content["state"]), content["step"], content["total_steps"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found[status.parent.name] = state if state == "finished" else f"{state} at step {step} of {total}"
    return found


def _training(runs: dict[str, str]) -> Step:
    arms = " ".join(f"--recipe {name}" for name in ARMS)
    if not runs:
        return Step("training", False, f"no run in {RUNS}/", f"ragcun train {arms} --seeds 0,1,2")
    finished = [name for name, state in runs.items() if state == "finished"]
    others = [f"{name} {state}" for name, state in runs.items() if state != "finished"]
    parts = [f"finished: {_named(finished)}"] if finished else []
    seen = "; ".join([*parts, *others[:SHOWN], *(["..."] if len(others) > SHOWN else [])])
    unfinished = next((name for name, state in runs.items() if state != "finished"), None)
    command = f"ragcun train {arms} --seeds 0,1,2"
    if unfinished is not None:
        command = f"ragcun train --recipe {RUNS}/{unfinished}/recipe.yaml --resume"
    return Step("training", unfinished is None, seen, command)


def _evaluation(folder: Path, finished: Sequence[str]) -> Step:
    results = sorted(path.parent.name for path in (folder / RESULTS).glob("*/model.json"))
    missing = [name for name in finished if name not in results]
    wanted = missing or list(finished)
    models = " ".join(f"--model {RUNS}/{name}" for name in wanted) or f"--model {RUNS}/NAME"
    here = available_collections(folder / DATA)
    command = f"ragcun eval beir {models} --datasets {'public' if not here else ','.join(here[:SHOWN])}"
    if not results:
        return Step("evaluation", False, f"nothing in {RESULTS}/", command)
    seen = f"{_named(results)} in {RESULTS}/" + (f"; not yet: {_named(missing)}" if missing else "")
    return Step("evaluation", not missing, seen, command)


def _report(folder: Path) -> Step:
    made = [name for name in REPORTS if (folder / name).exists()]
    command = "ragcun report table --format latex"
    if not made:
        return Step("report", False, "no table, figures or page by their usual names", command)
    return Step("report", True, ", ".join(made), command)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
