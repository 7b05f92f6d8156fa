"""What a run does on its machines: the resolved recipes, the data they need, and what is scored at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.data.registry import DOWNLOADS, GROUPS, KNOWN, TRAINING, WORDS_PER_PASSAGE
from ragcun_cli.errors import UsageError
from ragcun_cli.files import sha256_of_file
from ragcun_cli.recipe.encoder_shapes import EncoderShape, shape_of
from ragcun_cli.recipe.estimates import (
    UNKNOWN_WORDS,
    Estimate,
    Machine,
    assumed_counts,
    assumed_size,
    calculated_rates,
    estimate_encoding,
    estimate_training,
    whole_seconds,
)
from ragcun_cli.recipe.rendering import render_recipe
from ragcun_cli.recipe.schema import Recipe

EMBEDDED = "embedded:"  # collections that a machine makes itself, from the Python code on it
EMBEDDED_TRIPLES, EMBEDDED_PASSAGES = 400, 5_000  # about: they are made from the Python code of the machine
SECONDS_TO_INSTALL = 660.0  # start of the machine, packages, preflight with its short trainings; assumed
DOWNLOAD_BYTES_A_SECOND = 20e6  # of BEIR's server and the hub, assumed
UNPACKED = 4.0  # bytes on the disk for each byte of a zip: itself and what is in it
SYSTEM_GIB, DISK_STEP_GIB = 100, 50


@dataclass(frozen=True)
class Input:
    """A file or folder of the user's, which the machine gets below `inputs/`."""

    path: Path
    key: str


@dataclass(frozen=True)
class Job:
    """recipes: as the machine trains them. seeds: of the command line. datasets: for `ragcun eval beir`.

    downloads: for `ragcun data download`. inputs: what is uploaded. triples and
    shapes, of the encoder: of each recipe, by its name.
    """

    recipes: tuple[Recipe, ...]
    seeds: tuple[int, ...]
    datasets: str
    downloads: tuple[str, ...]
    precision: str
    inputs: tuple[Input, ...]
    triples: dict[str, int | None]
    shapes: dict[str, EncoderShape]

    @property
    def runs(self) -> int:
        """Trainings, over all recipes and seeds."""
        return sum(self.runs_of(recipe) for recipe in self.recipes)

    def runs_of(self, recipe: Recipe) -> int:
        """Trainings of one recipe: one for each seed."""
        return len(self.seeds or recipe.seeds or (recipe.seed,))

    @property
    def base_models(self) -> tuple[str, ...]:
        """Encoders that are scored untouched beside the arms."""
        return tuple(dict.fromkeys(recipe.base_model for recipe in self.recipes))

    def rendered(self) -> dict[str, str]:
        """Name and text of each recipe."""
        return {recipe.name: render_recipe(recipe) for recipe in self.recipes}


def make_job(recipes: Sequence[Recipe], seeds: Sequence[int], datasets: str | None, precision: str, backup: str) -> Job:
    """Rewrite recipes for a machine: folders of its own, a backup in the run's prefix, inputs by their place there.

    Raises:
        UsageError: if two recipes have one name, or name data that neither the machine can get nor is here.
    """
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise UsageError(f"--recipe: two recipes are called {max(names, key=names.count)}", "Give each its own name.")
    inputs: dict[str, Input] = {}
    rewritten = tuple(_for_machine(recipe, backup, inputs) for recipe in recipes)
    wanted = [name for name in (datasets or _usual_datasets(recipes)).split(",") if name]
    scored = [name if _can_be_had(name) else _as_input(name, "--datasets", inputs) for name in wanted]
    needed = [recipe.data.train for recipe in rewritten]
    needed += [recipe.data.dev for recipe in rewritten if recipe.data.dev is not None]
    downloads = [name for name in dict.fromkeys(needed) if name in TRAINING or name in KNOWN]
    downloads += [_download_name(name) for name in scored if name in GROUPS or name in KNOWN]
    return Job(
        recipes=rewritten,
        seeds=tuple(seeds),
        datasets=",".join(scored),
        downloads=tuple(dict.fromkeys(downloads)),
        precision=precision,
        inputs=tuple(inputs.values()),
        triples={recipe.name: count_triples(recipe) for recipe in recipes},
        shapes={recipe.name: shape_of(recipe.base_model) for recipe in recipes},
    )


def _for_machine(recipe: Recipe, backup: str, inputs: dict[str, Input]) -> Recipe:
    if "wandb" in recipe.trackers:
        raise UsageError(
            f"recipe {recipe.name}: trackers: wandb needs a key, and no key is passed on to a machine",
            "--set trackers=[tensorboard] or []; metrics.jsonl comes back in any case.",
        )
    base = recipe.base_model
    if Path(base).expanduser().exists() and not base.startswith(EMBEDDED):
        base = _as_input(base, f"recipe {recipe.name}: base_model", inputs)
    data = {"folder": "data"}
    for key in ("train", "dev"):
        value = getattr(recipe.data, key)
        if value is not None and not _is_known(value):
            data[key] = _as_input(value, f"recipe {recipe.name}: data.{key}", inputs)
    return recipe.model_copy(
        update={
            "base_model": base,
            "output_dir": f"checkpoints/{recipe.name}",
            "backup": backup,
            "data": recipe.data.model_copy(update=data),
        }
    )


def _is_known(name: str) -> bool:
    return name in TRAINING or (name not in GROUPS and _can_be_had(name))


def _usual_datasets(recipes: Sequence[Recipe]) -> str:
    """BEIR's public sets, unless all recipes train on what the machine makes itself."""
    trained_on = {recipe.data.train for recipe in recipes}
    made = all(name.startswith(EMBEDDED) for name in trained_on)
    return ",".join(sorted(trained_on)) if made else "public"


def _can_be_had(name: str) -> bool:
    return name in GROUPS or name.startswith(EMBEDDED) or (name in KNOWN and KNOWN[name].md5 is not None)


def _as_input(value: str, where: str, inputs: dict[str, Input]) -> str:
    """The path that the machine will have it by, relative to where it trains."""
    path = Path(value).expanduser()
    if not path.exists() and value in KNOWN:
        raise UsageError(
            f"{where}: {value}: is licensed, so that no machine can fetch it",
            f"`ragcun data import {value}` makes a folder of it; give that folder's path, and it is uploaded.",
        )
    if not path.exists():
        raise UsageError(
            f"{where}: {value}: is neither here nor a name that `ragcun data list` shows",
            "A file or folder of yours is uploaded with the run; give its path.",
        )
    key = f"inputs/{_digest(path)[:12]}/{path.resolve().name}"
    inputs[key] = Input(path, key)
    return key


def _digest(path: Path) -> str:
    if path.is_file():
        return sha256_of_file(path)
    parts = [f"{each.relative_to(path).as_posix()} {sha256_of_file(each)}" for each in files_below(path)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def files_below(path: Path) -> Iterator[Path]:
    """The file itself, or all files of the folder."""
    if path.is_file():
        yield path
        return
    yield from (each for each in sorted(path.rglob("*")) if each.is_file())


def _download_name(name: str) -> str:
    if name in GROUPS:
        return "beir" if name == "public" else "all"
    return KNOWN[name].download_name


def _scored_passages(job: Job) -> list[tuple[int, float]]:
    """Count and mean words of what is encoded for one model."""
    found = []
    for name in job.datasets.split(","):
        for each in GROUPS.get(name, (name,)):
            if each in KNOWN and KNOWN[each].md5 is not None:
                found.append((KNOWN[each].passages, WORDS_PER_PASSAGE[each]))
            elif each not in KNOWN:
                found.append((EMBEDDED_PASSAGES, UNKNOWN_WORDS))
    return found


@dataclass(frozen=True)
class JobEstimate:
    """parts: seconds, None where they cannot be said. trainings: of one training of each recipe, by its name, as far as
    their triples are counted. disk: GiB that the machine's should have. basis: what the parts rest on.
    """

    parts: dict[str, float | None]
    trainings: dict[str, Estimate]
    disk: int
    basis: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Of the whole."""
        return whole_seconds(self.parts)


def estimate_job(job: Job, machine: Machine, triples_per_second: float | None) -> JobEstimate:
    """Installing, downloads, trainings, and the scoring of every arm and of the untouched encoders.

    Searching and indexing are not counted.
    """
    side_by_side = machine.devices if machine.is_gpu and machine.nodes == 1 and job.runs > 1 else 1
    devices = 1 if side_by_side > 1 or not machine.is_gpu else machine.devices * machine.nodes
    all_trainings = {
        recipe.name: estimate_on_machine(
            recipe, job.shapes[recipe.name], job.triples[recipe.name] or 0, machine, devices, triples_per_second
        )
        for recipe in job.recipes
    }
    uncounted = [name for name, triples in job.triples.items() if triples is None]
    trainings = {name: each for name, each in all_trainings.items() if name not in uncounted}
    scoring, basis = _scoring(job, machine)
    each = [trainings[recipe.name].seconds for recipe in _counted(job) for _ in range(job.runs_of(recipe))]
    said = [phrase for estimate in trainings.values() for phrase in estimate.basis]
    said += [f"recipe {name}: its triples are counted only when it trains" for name in uncounted]
    return JobEstimate(
        parts={
            "installing": SECONDS_TO_INSTALL,
            "downloads": _download_bytes(job) / DOWNLOAD_BYTES_A_SECOND,
            "training": None if uncounted else _side_by_side(each, side_by_side),
            "evaluation": scoring,
        },
        trainings=trainings,
        disk=_disk_gib(job, sum(all_trainings[recipe.name].disk * job.runs_of(recipe) for recipe in job.recipes)),
        basis=tuple(dict.fromkeys((*said, *basis))),
    )


def _counted(job: Job) -> list[Recipe]:
    return [recipe for recipe in job.recipes if job.triples[recipe.name] is not None]


def _scoring(job: Job, machine: Machine) -> tuple[float | None, tuple[str, ...]]:
    """Seconds of encoding what every trained model and every untouched encoder is scored on."""
    untouched = {recipe.base_model: recipe for recipe in reversed(job.recipes)}
    models = [*(recipe for recipe in job.recipes for _ in range(job.runs_of(recipe))), *untouched.values()]
    passages = _scored_passages(job)
    parts = [
        estimate_encoding(job.shapes[recipe.name], passages, recipe.max_length, job.precision, machine)
        for recipe in models
    ]
    return whole_seconds({str(number): seconds for number, (seconds, _) in enumerate(parts)}), parts[0][1]


def estimate_on_machine(
    recipe: Recipe,
    shape: EncoderShape,
    triples: int,
    machine: Machine,
    devices: int,
    triples_per_second: float | None = None,
) -> Estimate:
    """Of one training, calculated, on so many of the machine's devices. triples_per_second: measured there."""
    rates = calculated_rates(recipe, shape, machine, devices, triples_per_second)
    size = assumed_size(recipe, shape, "half" if machine.is_gpu else "single")
    return estimate_training(recipe, assumed_counts(recipe, triples), size, rates, machine.device_bytes)


def _side_by_side(seconds: Sequence[float | None], devices: int) -> float | None:
    """Until the last is done, each on the device that is free first."""
    free = [0.0] * devices
    for each in seconds:
        if each is None:
            return None
        free[free.index(min(free))] += each
    return max(free)


def count_triples(recipe: Recipe) -> int | None:
    """Of the recipe as the user has it; None where they are not counted before the training."""
    import pyarrow

    name = recipe.data.train
    if name in TRAINING:
        return TRAINING[name].rows
    if name.startswith(EMBEDDED):
        return EMBEDDED_TRIPLES
    path = Path(name).expanduser()
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return int(parquet.read_metadata(path).num_rows)
        if path.suffix in (".jsonl", ".tsv", ".csv"):
            with path.open("rb") as lines:
                return sum(1 for _ in lines)
        with (path / "qrels" / "train.tsv").open("rb") as lines:
            return sum(1 for _ in lines) - 1
    except (OSError, pyarrow.ArrowException):
        return None


def _download_bytes(job: Job) -> float:
    total = 0.0
    for name in job.downloads:
        for each in DOWNLOADS.get(name, (name,)):
            if each in TRAINING:
                total += TRAINING[each].bytes
            else:
                known = next(row for row in KNOWN.values() if row.download_name == each)
                total += known.zip_bytes or 0
    return total


def _disk_gib(job: Job, runs: float) -> int:
    """What the machine's disk should have: the system, the data, two datasets' embeddings, and the runs' bytes."""
    data = _download_bytes(job) * UNPACKED
    largest = max((count for count, _ in _scored_passages(job)), default=0)
    embeddings = 2 * largest * max(recipe.output_dim for recipe in job.recipes) * 4
    needed = SYSTEM_GIB + (data + embeddings + runs) / (1 << 30)
    return -(-int(needed) // DISK_STEP_GIB) * DISK_STEP_GIB
