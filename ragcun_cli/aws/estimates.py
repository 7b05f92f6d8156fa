"""What a run takes on its machines, and on each known one: time, memory, disk, tokens, money; calculated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ragcun_cli.aws.instances import KNOWN as KNOWN_INSTANCES
from ragcun_cli.aws.job import Job, count_triples, files_of_download
from ragcun_cli.aws.prices import table_price
from ragcun_cli.data.registry import GROUPS, KNOWN, SHARED_CORPORA, WORDS_PER_PASSAGE
from ragcun_cli.recipe.encoder_shapes import EncoderShape, shape_of
from ragcun_cli.recipe.estimates import (
    TOKENISED_A_SECOND,
    UNKNOWN_WORDS,
    WRITTEN_A_SECOND,
    Estimate,
    Machine,
    assumed_counts,
    assumed_size,
    calculated_rates,
    estimate_encoding,
    estimate_training,
    tokens_of,
    whole_seconds,
)
from ragcun_cli.recipe.schema import Recipe

EMBEDDED_PASSAGES = 5_000  # roughly: these collections are built from the machine's Python code
EMBEDDED_QUERIES = 500
SECONDS_TO_INSTALL = 660.0  # assumed, for machine start, packages, and preflight with its short trainings
DOWNLOAD_BYTES_A_SECOND = 20e6  # assumed, for BEIR's server and the Hub; neither promises any speed
STAGED_BYTES_A_SECOND = 200e6  # assumed, from a bucket of the same region
UNPACKED_BYTES_A_SECOND = 60e6  # assumed, of what comes out of a zip, with its checksums
EXPANSION = 3.0  # bytes that come out per byte of a zip of texts; assumed
SEARCH_SHARE = 0.2  # of the data sheet's float32 FLOP/s, in search: assumed
SYSTEM_GIB, DISK_STEP_GIB = 100, 50
LEAST_CACHE_GIB, MOST_CACHE_GIB = 10, 1000
BYTES_OF_FLOAT = 4
GIB = 1 << 30


@dataclass(frozen=True)
class DiskPlan:
    """A machine's disk in GiB, and how much of it is for what can be recomputed, such as embeddings."""

    total: int
    cache: int


@dataclass(frozen=True)
class ScoredCorpus:
    """Passages that each model encodes once, their mean words, and the queries of all datasets that search them."""

    passages: int
    words: float
    queries: int


@dataclass(frozen=True)
class JobEstimate:
    """A job's estimate. parts: seconds, None if unknown. trainings: one training of each recipe, by recipe name, if its
    triples are counted; share: fraction of the machine that each takes, 1 for all of it. basis: what the parts are
    based on.
    """

    parts: dict[str, float | None]
    trainings: dict[str, Estimate]
    share: float
    disk: DiskPlan
    basis: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """The seconds of the whole job, or None if unknown."""
        return whole_seconds(self.parts)


def estimate_job(
    job: Job,
    machine: Machine,
    triples_per_second: float | None,
    staged: frozenset[str] = frozenset(),
    disk: int | None = None,
) -> JobEstimate:
    """Estimate installation, downloads, trainings, and the scoring of every arm and the untouched encoders.

    staged: the files that the bucket has. disk: GiB that the user chose.
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
    each = [trainings[recipe.name].seconds for recipe in _counted(job) for _ in range(job.runs_of(recipe))]
    evaluation, evaluation_basis = _evaluation(job, machine)
    said = [phrase for estimate in trainings.values() for phrase in estimate.basis]
    said += [f"recipe {name}: its triples are counted only when it trains" for name in uncounted]
    return JobEstimate(
        parts={
            "installing": SECONDS_TO_INSTALL,
            "downloads": _download_seconds(job, staged),
            "unpacking": 0.0 if job.only_downloads else EXPANSION * _zip_bytes(job) / UNPACKED_BYTES_A_SECOND,
            "training": None if uncounted else _side_by_side(each, side_by_side),
            "evaluation": evaluation,
            "search": _search_seconds(job, machine),
        },
        trainings=trainings,
        share=1 / side_by_side,
        disk=_disk(job, sum(all_trainings[recipe.name].disk * job.runs_of(recipe) for recipe in job.recipes), disk),
        basis=tuple(dict.fromkeys((*said, *evaluation_basis, *_data_basis(job, staged)))),
    )


def _corpora(job: Job) -> list[ScoredCorpus]:
    """Return the distinct corpora of what is scored: the embeddings of equal passages are kept and used again."""
    found: dict[str, ScoredCorpus] = {}
    if job.only_downloads:
        return []
    for name in job.datasets.split(","):
        for each in GROUPS.get(name, (name,)):
            if each in KNOWN and KNOWN[each].md5 is None:
                continue
            known = KNOWN.get(each)
            corpus = SHARED_CORPORA.get(each, each)
            before = found.get(corpus)
            queries = (known.queries if known else EMBEDDED_QUERIES) + (before.queries if before else 0)
            passages = known.passages if known else EMBEDDED_PASSAGES
            found[corpus] = ScoredCorpus(passages, WORDS_PER_PASSAGE.get(each, UNKNOWN_WORDS), queries)
    return list(found.values())


def _counted(job: Job) -> list[Recipe]:
    return [recipe for recipe in job.recipes if job.triples[recipe.name] is not None]


def _models(job: Job) -> int:
    """Return how many models are scored: every training's, and each untouched encoder."""
    return job.runs + len(job.base_models)


def _evaluation(job: Job, machine: Machine) -> tuple[float | None, tuple[str, ...]]:
    """Return the seconds to encode what is scored, once by each trained encoder and once by each untouched one.

    Frozen arms use the untouched encoder's pass. Tokenising goes on beside it: whichever takes longer counts.
    """
    corpora = _corpora(job)
    passages = [(each.passages, each.words) for each in corpora]
    untouched = {recipe.base_model: recipe for recipe in reversed(job.recipes)}
    trained = [recipe for recipe in job.recipes if not recipe.freeze_base for _ in range(job.runs_of(recipe))]
    total, basis = 0.0, tuple[str, ...]()
    for recipe in (*trained, *untouched.values()):
        encoding, basis = estimate_encoding(
            job.shapes[recipe.name], passages, recipe.max_length, job.precision, machine
        )
        if encoding is None:
            return None, basis
        tokens = sum(each.passages * tokens_of(each.words, recipe.max_length) for each in corpora)
        total += max(encoding, tokens / (TOKENISED_A_SECOND * machine.cores))
    rate = f"tokenising: {TOKENISED_A_SECOND / 1e3:.0f},000 tokens/s on each of {machine.cores} cores, beside encoding"
    return total, (*basis, rate)


def _search_seconds(job: Job, machine: Machine) -> float | None:
    """Return the seconds of every model's search: two operations for each dimension, passage and query, and the
    passages' vectors written once and read once."""
    peak = machine.flops("single")
    if job.only_downloads:
        return 0.0
    if peak is None:
        return None
    width = max(recipe.output_dim for recipe in job.recipes)
    pairs = sum(each.passages * each.queries for each in _corpora(job))
    vectors = sum(each.passages for each in _corpora(job)) * width * BYTES_OF_FLOAT
    one = 2 * width * pairs / (peak * SEARCH_SHARE * machine.devices) + 2 * vectors / WRITTEN_A_SECOND
    return _models(job) * one


def _download_seconds(job: Job, staged: frozenset[str]) -> float:
    known = dict(each for name in job.downloads for each in files_of_download(name))
    here = sum(size for name, size in known.items() if name in staged)
    return here / STAGED_BYTES_A_SECOND + (sum(known.values()) - here) / DOWNLOAD_BYTES_A_SECOND


def _data_basis(job: Job, staged: frozenset[str]) -> list[str]:
    names = [name for each in job.downloads for name, _ in files_of_download(each)]
    missing = [name for name in names if name not in staged]
    if not names:
        return []
    said = [f"unpacking: {UNPACKED_BYTES_A_SECOND / 1e6:.0f} MB/s of text (assumed)"]
    if missing:
        said.append(
            f"downloads: {len(missing)} of {len(names)} files at {DOWNLOAD_BYTES_A_SECOND / 1e6:.0f} MB/s (assumed; "
            "public servers promise no speed): `ragcun aws stage` keeps them in the bucket"
        )
    return said


def _download_bytes(job: Job) -> float:
    return sum(size for name in job.downloads for _, size in files_of_download(name))


def _zip_bytes(job: Job) -> float:
    return sum(size for each in job.downloads for name, size in files_of_download(each) if name.endswith(".zip"))


def _disk(job: Job, runs: float, chosen: int | None) -> DiskPlan:
    """Size the disk by what will be kept: the system, the data, the runs, and all that may be used again.

    chosen: by the user; then what is left of it is for the cache.
    """
    data = _download_bytes(job) + EXPANSION * _zip_bytes(job)
    others = SYSTEM_GIB + (data + runs) / GIB
    passages = sum(each.passages for each in _corpora(job))
    embeddings = sum(recipe.output_dim * job.runs_of(recipe) for recipe in job.recipes)
    untouched = {recipe.base_model: job.shapes[recipe.name].width for recipe in job.recipes}
    needed = passages * (embeddings + sum(untouched.values())) * BYTES_OF_FLOAT / GIB
    cache = min(max(LEAST_CACHE_GIB, math.ceil(1.05 * needed)), MOST_CACHE_GIB)
    if chosen is not None:
        return DiskPlan(chosen, max(LEAST_CACHE_GIB, min(cache, int(chosen - others))))
    return DiskPlan(math.ceil((others + cache) / DISK_STEP_GIB) * DISK_STEP_GIB, cache)


def _side_by_side(seconds: Sequence[float | None], devices: int) -> float | None:
    """Return the seconds until the last training is done, each on the first free device."""
    free = [0.0] * devices
    for each in seconds:
        if each is None:
            return None
        free[free.index(min(free))] += each
    return max(free)


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
