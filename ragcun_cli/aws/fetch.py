"""Fetch a run's results, models and logs, and verify each file's checksum."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.aws.record import CHECKPOINTS, MIRRORED, RunRecord
from ragcun_cli.runs.folder import BEST_MODEL, FINAL_MODEL
from ragcun_cli.runs.status import Status
from ragcun_cli.safe_paths import UNUSABLE_NAME, UnsafeName, safe_join, shown_name
from ragcun_cli.storage.s3 import S3Store
from ragcun_cli.storage.snapshots import FINAL, MODELS, RUN, STATUS, best_key, fetch_folder, folders_in

MODELS_WANTED, CHECKPOINTS_WANTED = "models", "checkpoints"
PARTS = (*MIRRORED, MODELS_WANTED, CHECKPOINTS_WANTED)
USUAL_PARTS = (*MIRRORED, MODELS_WANTED)


@dataclass
class Fetched:
    """What was fetched: counts, and what was incomplete."""

    files: int = 0
    unchanged: int = 0
    bytes: int = 0
    models: int = 0
    unlisted: int = 0  # files without a checksum in the run's list: of a machine that ended abruptly, or of other nodes
    problems: list[str] = field(default_factory=list)


def fetch_run(record: RunRecord, parts: tuple[str, ...], to: Path) -> Fetched:
    """Fetch results, report and logs as on the machine, and models into checkpoints/<run>/best_model and final_model.

    A file that is already here with the same checksum is not fetched again. One whose checksum differs from the
    upload's is not kept but becomes one of the problems; the others are still fetched.
    """
    done = Fetched()
    digests = record.digests()
    store = record.store()
    for part in (part for part in MIRRORED if part in parts):
        for key in _files(store, f"{part}/"):
            _fetch_file(store, key, digests.get(key), to, done)
    if MODELS_WANTED in parts or CHECKPOINTS_WANTED in parts:
        _fetch_trainings(store, parts, to / CHECKPOINTS, done)
    return done


class _NotAsUploaded(Exception):
    pass


def _files(store: S3Store, below: str) -> list[str]:
    """Return the keys of a prefix, without the empty objects by which S3's console shows a folder."""
    return [key for key in store.keys(below) if not key.endswith("/")]


def _fetch_file(store: S3Store, key: str, digest: str | None, to: Path, done: Fetched) -> None:
    try:
        path = safe_join(to, key)
        if digest is not None and path.is_file() and files.sha256_of_file(path) == digest:
            done.unchanged += 1
            return
        with files.replacing(path) as temporary:
            store.fetch(key, temporary)
            if digest is not None and files.sha256_of_file(temporary) != digest:
                raise _NotAsUploaded
    except _NotAsUploaded:
        done.problems.append(f"{key}: its sha256 differs from the uploaded one")
        return
    except OSError as error:
        _require_of_object(error)
        done.problems.append(_about(key, error))
        return
    done.files += 1
    done.unlisted += digest is None
    done.bytes += path.stat().st_size


def _require_of_object(error: OSError) -> None:
    """Raise again what is wrong here, such as a full disk: S3's refusals have no number, and are of one object."""
    if error.errno is not None and not isinstance(error, UNUSABLE_NAME):
        raise error


def _about(key: str, error: OSError) -> str:
    return str(error) if isinstance(error, UnsafeName) else f"{shown_name(key)}: {error}"


def _fetch_trainings(store: S3Store, parts: tuple[str, ...], to: Path, done: Fetched) -> None:
    for name in sorted({key.split("/")[1] for key in _files(store, f"{CHECKPOINTS}/")}):
        try:
            _fetch_training(store, f"{CHECKPOINTS}/{name}", parts, safe_join(to, name), done)
        except OSError as error:
            _require_of_object(error)
            done.problems.append(_about(f"{CHECKPOINTS}/{name}", error))


def _fetch_training(store: S3Store, below: str, parts: tuple[str, ...], to: Path, done: Fetched) -> None:
    for key in _files(store, f"{below}/{RUN}/"):
        content = store.read(key)
        if content is not None:
            files.write_bytes(safe_join(to, key.removeprefix(f"{below}/{RUN}/")), content)
    wanted = _models_of(store, below) if MODELS_WANTED in parts else {}
    if CHECKPOINTS_WANTED in parts:
        steps = folders_in(store, f"{below}/checkpoints/")
        wanted |= {key: f"checkpoints/{key.removeprefix(f'{below}/checkpoints/')}" for key in steps}
    for key, folder in wanted.items():
        final = safe_join(to, folder)
        problem = fetch_folder(store, key, final, keeps_manifest=folder.startswith("checkpoints/"))
        if problem is None:
            done.models += 1
        else:
            done.problems.append(f"{key}: {problem}")


def _models_of(store: S3Store, below: str) -> dict[str, str]:
    """Return the keys of the final and the best model, if there are any yet, and their folders' names."""
    there = folders_in(store, f"{below}/{MODELS}/")
    wanted = {f"{below}/{FINAL}": FINAL_MODEL}
    status = Status.parse(store.read(f"{below}/{STATUS}"))
    if status is not None and (best := status.progress.best_step) is not None:
        wanted[f"{below}/{best_key(best)}"] = BEST_MODEL
    return {key: folder for key, folder in wanted.items() if key in there}
