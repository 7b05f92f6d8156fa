"""Find a folder's progress from data to results table: quickly, from its files, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.data.sources import available_collections
from ragcun_cli.quantities import counted
from ragcun_cli.recipe.shipped import ARMS
from ragcun_cli.runs.folder import METRICS, RECIPE, SPEED, STATUS
from ragcun_cli.runs.status import FINISHED, Status

DATA, RUNS, RESULTS = Path("data"), Path("checkpoints"), Path("results")
REPORTS = ("report.html", "figures")
TABLES = ("table*.tex", "table*.md", "table*.html", "table*.csv", "table*.json")
TRAINING_FILES = ("*.jsonl", "*.tsv", "*.csv", "*.parquet", "*.jsonl.gz")
NO_TRAINING = frozenset({"corpus.jsonl", "queries.jsonl", METRICS, SPEED})
SHOWN = 4  # names in one line
DEEPEST, MOST_FOLDERS = 3, 2000  # search limits, so that a home folder takes no longer than an experiment


@dataclass(frozen=True)
class Step:
    """One step of the experiment. done: whether it has output here; seen: which; command: how to do it."""

    name: str
    done: bool
    seen: str
    command: str


@dataclass(frozen=True)
class _Run:
    """A run's folder, relative to the inspected one, and its state in words."""

    path: str
    state: str
    finished: bool
    evaluated_as: str


def experiment_status(folder: Path) -> list[Step]:
    """Return the steps in order, judged by the folder's contents: runs and results may be in any subfolder."""
    folders = [Path(), *_folders_below(folder)]
    runs = [run for each in folders if (run := _run(folder, each)) is not None]
    scored = sorted({each.parent for each in folders if (folder / each / "model.json").is_file()})
    names = {each.name for each in folders if (folder / each / "model.json").is_file()}
    return [
        _data(folder, bool(runs)),
        _training(runs),
        _evaluation(folder, runs, scored, names),
        _report(folder, scored),
    ]


def next_command(steps: Sequence[Step]) -> str:
    """Return the command of the first unfinished step, or the report command if all are done."""
    return next((step.command for step in steps if not step.done), steps[-1].command)


def _folders_below(root: Path) -> Iterator[Path]:
    """Yield relative paths, shallow ones first; folders inside a run are skipped."""
    level, seen = [Path()], 0
    for _ in range(DEEPEST):
        below = []
        for parent in level:
            try:
                children = sorted(each.name for each in os.scandir(root / parent) if _is_folder(each))
            except OSError:
                continue
            for name in children:
                seen += 1
                if name.startswith((".", "_")) or name == "node_modules" or seen > MOST_FOLDERS:
                    continue
                yield parent / name
                if not (root / parent / name / STATUS).is_file():
                    below.append(parent / name)
        level = below


def _run(root: Path, folder: Path) -> _Run | None:
    place = root / folder
    if not (place / RECIPE).is_file():
        return None
    status = Status.find(place / STATUS)
    if status is None:
        return None
    return _Run(folder.as_posix(), status.shown, status.state == FINISHED, folder.name)


def _data(folder: Path, has_trained: bool) -> Step:
    """Return the data step. If there are runs, there was data somewhere, so the step is done."""
    from ragcun_cli.data.fetch.catalogue import entries

    place = folder / DATA
    known = entries(place) if place.is_dir() else []
    training = [each.name for each in known if each.kind == "training" and each.state not in ("", "part of it")]
    made = {path.name for pattern in TABLES for path in folder.glob(pattern)}
    for where in (folder, place):
        found = sorted({path for pattern in TRAINING_FILES for path in where.glob(pattern)})
        training += [path.relative_to(folder).as_posix() for path in found if path.name not in NO_TRAINING | made]
    collections = available_collections(place)
    own = "used by the runs" if has_trained else "none"
    seen = f"training data: {_named(training) or own}; {counted(len(collections), 'collection')} in {DATA}/"
    return Step("data", has_trained or bool(training and collections), seen, "ragcun data download msmarco beir")


def _training(runs: Sequence[_Run]) -> Step:
    arms = " ".join(f"--recipe {name}" for name in ARMS)
    if not runs:
        return Step("training", False, "no run in this folder", f"ragcun train {arms} --seeds 0,1,2")
    finished = [run.path for run in runs if run.finished]
    others = [run for run in runs if not run.finished]
    parts = [f"finished: {_named(finished)}"] if finished else []
    parts += [f"{run.path} {run.state}" for run in others[:SHOWN]]
    seen = "; ".join([*parts, *(["..."] if len(others) > SHOWN else [])])
    command = f"ragcun train {arms} --seeds 0,1,2"
    if others:
        command = f"ragcun train --recipe {others[0].path}/recipe.yaml --resume"
    return Step("training", not others, seen, command)


def _evaluation(folder: Path, runs: Sequence[_Run], scored: Sequence[Path], names: set[str]) -> Step:
    finished = [run for run in runs if run.finished]
    # A run that kept no model, as in tuning, has nothing to score.
    missing = [run for run in finished if run.evaluated_as not in names and _has_model(folder / run.path)]
    kept = [run for run in finished if _has_model(folder / run.path)]
    models = " ".join(f"--model {run.path}" for run in missing or kept) or f"--model {RUNS}/NAME"
    here = available_collections(folder / DATA)
    command = f"ragcun eval beir {models} --datasets {'public' if not here else ','.join(here[:SHOWN])}"
    if not scored:
        return Step("evaluation", False, f"nothing in {RESULTS}/ yet", command)
    where = _named([f"{each.as_posix()}/" for each in scored])
    not_yet = f"; not evaluated yet: {_named([run.path for run in missing])}" if missing else ""
    return Step("evaluation", not missing, f"{_named(sorted(names))} in {where}{not_yet}", command)


def _has_model(run: Path) -> bool:
    return (run / "best_model").is_dir() or (run / "final_model").is_dir()


def _report(folder: Path, scored: Sequence[Path]) -> Step:
    made = [name for name in REPORTS if (folder / name).exists()]
    made += sorted({path.name for pattern in TABLES for path in folder.glob(pattern)})
    where = f" --results {scored[0].as_posix()}" if scored and scored[0] != RESULTS else ""
    command = f"ragcun report table --format latex{where} > table.tex"
    if not made:
        return Step("report", False, "no table.*, figures/ or report.html here", command)
    return Step("report", True, _named(made), command)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder. A loop of links is not one, and must not hide its neighbours."""
    try:
        return entry.is_dir()
    except OSError:
        return False
