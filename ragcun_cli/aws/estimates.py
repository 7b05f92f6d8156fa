"""What a run takes on its machines, and on each known one: time, memory, disk, tokens, money; calculated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragcun_cli.aws.instances import KNOWN as KNOWN_INSTANCES
from ragcun_cli.aws.job import Job, count_triples
from ragcun_cli.aws.prices import table_price
from ragcun_cli.data.registry import DOWNLOADS, GROUPS, KNOWN, TRAINING, WORDS_PER_PASSAGE
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
from ragcun_cli.recipe.schema import Recipe

EMBEDDED_PASSAGES = 5_000  # roughly: these collections are built from the machine's Python code
SECONDS_TO_INSTALL = 660.0  # assumed, for machine start, packages, and preflight with its short trainings
DOWNLOAD_BYTES_A_SECOND = 20e6  # assumed, for BEIR's server and the Hub
UNPACKED = 4.0  # bytes on disk per byte of a zip: the zip and its contents
SYSTEM_GIB, DISK_STEP_GIB = 100, 50


@dataclass(frozen=True)
class JobEstimate:
    """A job's estimate. parts: seconds, None if unknown. trainings: one training of each recipe, by recipe name, if its
    triples are counted; share: fraction of the machine that each takes, 1 for all of it. disk: GiB that its disk
    should have. basis: what the parts are based on.
    """

    parts: dict[str, float | None]
    trainings: dict[str, Estimate]
    share: float
    disk: int
    basis: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """The seconds of the whole job, or None if unknown."""
        return whole_seconds(self.parts)


def estimate_job(job: Job, machine: Machine, triples_per_second: float | None) -> JobEstimate:
    """Estimate installation, downloads, trainings, and the scoring of every arm and the untouched encoders.

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
        share=1 / side_by_side,
        disk=_disk_gib(job, sum(all_trainings[recipe.name].disk * job.runs_of(recipe) for recipe in job.recipes)),
        basis=tuple(dict.fromkeys((*said, *basis))),
    )


def _scored_passages(job: Job) -> list[tuple[int, float]]:
    """Return passage count and mean words of each collection that one model encodes."""
    found = []
    for name in job.datasets.split(","):
        for each in GROUPS.get(name, (name,)):
            if each in KNOWN and KNOWN[each].md5 is not None:
                found.append((KNOWN[each].passages, WORDS_PER_PASSAGE[each]))
            elif each not in KNOWN:
                found.append((EMBEDDED_PASSAGES, UNKNOWN_WORDS))
    return found


def _counted(job: Job) -> list[Recipe]:
    return [recipe for recipe in job.recipes if job.triples[recipe.name] is not None]


def _scoring(job: Job, machine: Machine) -> tuple[float | None, tuple[str, ...]]:
    """Return the seconds to encode what every trained model and untouched encoder is scored on."""
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
    """Calculate the estimate of one training on `devices` of the machine. triples_per_second: measured there."""
    rates = calculated_rates(recipe, shape, machine, devices, triples_per_second)
    size = assumed_size(recipe, shape, "half" if machine.is_gpu else "single")
    return estimate_training(recipe, assumed_counts(recipe, triples), size, rates, machine.device_bytes)


def _side_by_side(seconds: Sequence[float | None], devices: int) -> float | None:
    """Return the seconds until the last training is done, each on the first free device."""
    free = [0.0] * devices
    for each in seconds:
        if each is None:
            return None
        free[free.index(min(free))] += each
    return max(free)


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
    """Return the disk size for the system, the data, two datasets' embeddings, and the runs' bytes."""
    data = _download_bytes(job) * UNPACKED
    largest = max((count for count, _ in _scored_passages(job)), default=0)
    embeddings = 2 * largest * max(recipe.output_dim for recipe in job.recipes) * 4
    needed = SYSTEM_GIB + (data + embeddings + runs) / (1 << 30)
    return -(-int(needed) // DISK_STEP_GIB) * DISK_STEP_GIB


@dataclass(frozen=True)
class InstanceEstimate:
    """One training on one machine. dollars: its cost at the table's on-demand price, or None if unknown."""

    instance: str
    described: str
    estimate: Estimate
    dollars: float | None


def estimates_on_known_machines(recipe: Recipe, triples: int | None = None) -> list[InstanceEstimate]:
    """Estimate with all GPUs of each machine. triples: if counted already. Empty if they cannot be counted."""
    count = count_triples(recipe) if triples is None else triples
    if count is None:
        return []
    found = []
    for instance in KNOWN_INSTANCES.values():
        machine = instance.machine(nodes=1)
        estimate = estimate_on_machine(recipe, shape_of(recipe.base_model), count, machine, machine.devices)
        price = table_price(instance.name, on_demand=True).dollars
        dollars = None if price is None or estimate.seconds is None else price * estimate.seconds / 3600
        found.append(InstanceEstimate(instance.name, instance.described(), estimate, dollars))
    return found


def by_instance(recipes: Sequence[Recipe], triples: dict[str, int]) -> dict[str, dict[str, InstanceEstimate]]:
    """Return each recipe's estimate by its name, for each instance type."""
    table: dict[str, dict[str, InstanceEstimate]] = {}
    for recipe in recipes:
        for each in estimates_on_known_machines(recipe, triples.get(recipe.name)):
            table.setdefault(each.instance, {})[recipe.name] = each
    return table
