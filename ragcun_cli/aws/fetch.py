"""Bringing a run's results, models and logs here, each file compared with its checksum."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.aws.record import CHECKPOINTS, FILES, MIRRORED, RunRecord
from ragcun_cli.storage.s3 import S3Store
from ragcun_cli.storage.sealed import FINAL, MODELS, RUN, STATUS, best_key, fetch_folder, folders_in

MODELS_WANTED, CHECKPOINTS_WANTED = "models", "checkpoints"
PARTS = (*MIRRORED, MODELS_WANTED, CHECKPOINTS_WANTED)
USUAL_PARTS = (*MIRRORED, MODELS_WANTED)


@dataclass
class Fetched:
    """Counts, and what was not whole."""

    files: int = 0
    unchanged: int = 0
    bytes: int = 0
    models: int = 0
    unlisted: int = 0  # files without a checksum in the run's list: of a machine that ended in haste, of other nodes
    problems: list[str] = field(default_factory=list)


def fetch_run(record: RunRecord, parts: tuple[str, ...], to: Path) -> Fetched:
    """Results, report and logs as on the machine; models into checkpoints/<run>/best_model and final_model.

    What is here already with the same checksum is not fetched again. A file that has another checksum than it was
    uploaded with does not get its name; it is one of the problems, and the others are fetched all the same.
    """
    done = Fetched()
    listed = (record.read_json(FILES) or {}).get("files", {})
    place = record.place()
    for part in (part for part in MIRRORED if part in parts):
        for key in place.keys(f"{part}/"):
            _fetch_file(place, key, listed.get(key), to / key, done)
    if MODELS_WANTED in parts or CHECKPOINTS_WANTED in parts:
        _fetch_trainings(place, parts, to / CHECKPOINTS, done)
    return done


class _NotAsUploaded(Exception):
    pass


def _fetch_file(place: S3Store, key: str, entry: dict[str, object] | None, path: Path, done: Fetched) -> None:
    if entry is not None and path.is_file() and files.sha256_of_file(path) == entry["sha256"]:
        done.unchanged += 1
        return
    try:
        with files.replacing(path) as temporary:
            place.fetch(key, temporary)
            if entry is not None and files.sha256_of_file(temporary) != entry["sha256"]:
                raise _NotAsUploaded
    except _NotAsUploaded:
        done.problems.append(f"{key}: has not the sha256 it was uploaded with")
        return
    done.files += 1
    done.unlisted += entry is None
    done.bytes += path.stat().st_size


def _fetch_trainings(place: S3Store, parts: tuple[str, ...], to: Path, done: Fetched) -> None:
    names = sorted({key.split("/")[1] for key in place.keys(f"{CHECKPOINTS}/")})
    for name in names:
        below = f"{CHECKPOINTS}/{name}"
        for key in place.keys(f"{below}/{RUN}/"):
            content = place.read(key)
            if content is not None:
                files.write_bytes(to / name / Path(key).name, content)
        wanted = _models_of(place, below) if MODELS_WANTED in parts else {}
        if CHECKPOINTS_WANTED in parts:
            wanted |= {key: f"checkpoints/{Path(key).name}" for key in folders_in(place, f"{below}/checkpoints/")}
        for key, folder in wanted.items():
            problem = fetch_folder(place, key, to / name / folder, keeps_manifest=folder.startswith("checkpoints/"))
            if problem is None:
                done.models += 1
            else:
                done.problems.append(f"{key}: {problem}")


def _models_of(place: S3Store, below: str) -> dict[str, str]:
    """Keys of the final and the best model, where there are any yet, and their folders' names."""
    there = folders_in(place, f"{below}/{MODELS}/")
    wanted = {f"{below}/{FINAL}": "final_model"}
    status = json.loads(place.read(f"{below}/{STATUS}") or b"{}")
    if status.get("best_step") is not None:
        wanted[f"{below}/{best_key(status['best_step'])}"] = "best_model"
    return {key: folder for key, folder in wanted.items() if key in there}
