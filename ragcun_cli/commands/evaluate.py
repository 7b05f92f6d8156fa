"""`ragcun eval`: score models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ragcun_cli.commands import completion
from ragcun_cli.commands.choices import Precision, listed
from ragcun_cli.commands.evaluate_printing import print_checks, print_isotropy, print_missing, print_results
from ragcun_cli.console import note, print_json
from ragcun_cli.errors import UsageError
from ragcun_cli.imports import collector_at_rest
from ragcun_cli.quantities import parse_bytes
from ragcun_cli.recipe.problems import did_you_mean

if TYPE_CHECKING:
    from ragcun_cli.evaluate.datasets import Dataset, Missing
    from ragcun_cli.evaluate.evaluator import EvaluationSettings, ModelToScore

LEAST_MEMORY = 64 << 20

app = typer.Typer(
    no_args_is_help=True, help="Score models, measure their isotropy, and check that the scores are correct."
)

MODELS = typer.Option(
    ...,
    "--model",
    "-m",
    help="A run folder, a model folder, a Hub id or embedded:all-MiniLM-L6-v2. May be repeated.",
    autocompletion=completion.models,
)
DATASETS = typer.Option(
    ...,
    "--datasets",
    "-d",
    help="all (the 18 of BEIR and MS MARCO), public (the 14 that anybody may download), names in --data-dir, or "
    "folders and zips in BEIR's layout; comma-separated.",
    autocompletion=completion.datasets,
)
DATA_DIR = typer.Option(Path("data"), "--data-dir", help="Folder with the named datasets, as folders or zips.")
RESULTS = typer.Option(Path("results"), "--results", help="Folder for the results.")
SPLIT = typer.Option(None, "--split", help="Split to score (default: `test`; `dev` for msmarco).")
NAME = typer.Option(None, "--name", help="Name of the model in the results; only with a single model.")
MAX_LENGTH = typer.Option(None, "--max-length", min=2, help="Tokens per text (default: the model's).")
SIMILARITIES = ["euclidean", "cosine"]
SIMILARITY = typer.Option(
    ["euclidean"], "--similarity", help="euclidean, cosine or both, comma-separated: each gets a separate row."
)
TRANSFORM = typer.Option(
    ["none"],
    "--transform",
    help="How embeddings are transformed first: none, center, whiten:ALPHA (from 0 to 2, such as whiten:0.5), int8, "
    "binary or truncate:D; comma-separated: each gets a separate row.",
)
FIT_ON = typer.Option(
    "corpus", "--fit-on", help="What to fit center, whiten and int8 on: `corpus`, or a file of training triples."
)
MEMORY = typer.Option(
    "1GiB", "--memory", help="Memory for the search, in addition to the model, such as 4GiB; at least 64MiB."
)
CACHE_LIMIT = typer.Option(
    None, "--cache-limit", help="Disk space for cached embeddings, such as 50GiB; least recently used are dropped."
)
PROCESSES = typer.Option(
    None, "--processes", min=1, help="Processes that encode and search (default: one per GPU, else one)."
)
PRECISION = typer.Option(
    "float32", "--precision", help="Encoder precision: float32, bf16 or fp16. Published scores use float32."
)
OVERWRITE = typer.Option(False, "--overwrite", help="Replace the results of a different model with the same name.")
RECOMPUTE = typer.Option(False, "--recompute", help="Score again even if an up-to-date result exists.")
JSON = typer.Option(False, "--json", help="Print the results as JSON.")


@app.command()
def beir(
    models: list[str] = MODELS,
    datasets: list[str] = DATASETS,
    data_dir: Path = DATA_DIR,
    results: Path = RESULTS,
    split: str | None = SPLIT,
    name: str | None = NAME,
    max_length: int | None = MAX_LENGTH,
    similarity: list[str] = SIMILARITY,
    transform: list[str] = TRANSFORM,
    fit_on: str = FIT_ON,
    no_robustness: bool = typer.Option(
        False, "--no-robustness", help="Skip nDCG@10 after int8, binary, and truncation to 256 and 128 dimensions."
    ),
    memory: str = MEMORY,
    cache_limit: str | None = CACHE_LIMIT,
    processes: int | None = PROCESSES,
    precision: Precision = PRECISION,
    overwrite: bool = OVERWRITE,
    recompute: bool = RECOMPUTE,
    json_output: bool = JSON,
) -> None:
    """Score models by exact search: nDCG, MAP, Recall, Precision and MRR as in trec_eval, and isotropy.

    A run folder stands for its best model. An encoder not trained by ragcun is scored unchanged, as its authors use it.
    Embeddings and results are kept: an interrupted evaluation continues where it stopped; a repeated one is instant.
    Missing datasets are listed with the command that gets them; incomplete sets are not averaged.
    Example: ragcun eval beir --model checkpoints/isotropy --datasets scifact,nfcorpus
    """
    found, missing = _datasets(models, datasets, data_dir, split)
    _refuse_early(models, name, max_length, results, overwrite)
    with collector_at_rest():  # imports torch only after the flags have been checked
        settings = _settings(
            similarity, transform, fit_on, memory, cache_limit, processes, precision, not no_robustness
        )
        to_score = _models(models, name, max_length)

    from ragcun_cli.evaluate.runner import averages, evaluate_models

    written = evaluate_models(to_score, found, results, settings, overwrite, recompute)
    means = averages(written)
    if json_output:
        print_json({"results": [each.content() for each in written], "averages": means, "missing": _entries(missing)})
        return
    print_results(written, means)
    print_missing(missing)
    _say_next(results)


@app.command()
def isotropy(
    models: list[str] = MODELS,
    datasets: list[str] = DATASETS,
    data_dir: Path = DATA_DIR,
    results: Path = RESULTS,
    split: str | None = SPLIT,
    name: str | None = NAME,
    max_length: int | None = MAX_LENGTH,
    similarity: list[str] = SIMILARITY,
    transform: list[str] = TRANSFORM,
    fit_on: str = FIT_ON,
    memory: str = MEMORY,
    cache_limit: str | None = CACHE_LIMIT,
    processes: int | None = PROCESSES,
    precision: Precision = PRECISION,
    overwrite: bool = OVERWRITE,
    recompute: bool = RECOMPUTE,
    json_output: bool = JSON,
) -> None:
    """Measure the isotropy of passage embeddings and query embeddings separately, without scoring.

    Reuses embeddings kept by `eval beir` and encodes the rest. `eval beir` also takes these measurements.
    Example: ragcun eval isotropy --model checkpoints/isotropy --datasets scifact
    """
    found, missing = _datasets(models, datasets, data_dir, split)
    _refuse_early(models, name, max_length, results, overwrite)
    settings = _settings(similarity, transform, fit_on, memory, cache_limit, processes, precision, False)
    to_score = _models(models, name, max_length)

    from ragcun_cli.evaluate.runner import measure_models
    from ragcun_cli.results.layout import SPECTRUM_ENDING

    measured = measure_models(to_score, found, results, settings, overwrite, recompute)
    if json_output:
        print_json({"isotropy": [each.content() for each in measured], "missing": _entries(missing)})
        return
    print_isotropy(measured)
    print_missing(missing)
    note(f"Written to {results}/<model>/isotropy.json and <dataset>{SPECTRUM_ENDING}.")


@app.command()
def selfcheck(
    model: str = typer.Option(
        "embedded:all-MiniLM-L6-v2",
        "--model",
        "-m",
        help="all-MiniLM-L6-v2 or all-mpnet-base-v2: embedded, Hub id or folder.",
    ),
    datasets: list[str] = typer.Option(
        [], "--datasets", "-d", help="Names or paths (default: all in --data-dir that have a published score)."
    ),
    data_dir: Path = DATA_DIR,
    json_output: bool = JSON,
) -> None:
    """Compare a known model's scores with the published ones; exit code 1 if one differs by more than 0.0005.

    Example: ragcun eval selfcheck --datasets scifact
    """
    import tempfile

    from ragcun_cli.evaluate.selfcheck import selfcheck as check

    with tempfile.TemporaryDirectory(prefix="ragcun-selfcheck-") as results:
        checks = check(model, _names(datasets, may_be_empty=True), data_dir, Path(results))
    if json_output:
        print_json([{**each.__dict__, "passed": each.passed} for each in checks])
    else:
        print_checks(checks)
    if any(each.measured is not None and not each.passed for each in checks):
        raise typer.Exit(1)


def _datasets(
    models: Sequence[str], datasets: Sequence[str], data_dir: Path, split: str | None
) -> tuple[list[Dataset], list[Missing]]:
    """Find the datasets, and check models and datasets as far as possible before torch is imported."""
    from ragcun_cli.evaluate.datasets import find_datasets
    from ragcun_cli.model.sources import require_model, require_place

    for model in models:
        require_place(model)
    found = find_datasets(_names(datasets), data_dir, split)
    for model in models:  # a Hub model may have to be downloaded
        require_model(model)
    return found


def _refuse_early(
    models: Sequence[str], name: str | None, max_length: int | None, results: Path, overwrite: bool
) -> None:
    from ragcun_cli.evaluate.models import refuse_early

    for model in models:
        refuse_early(model, name, max_length, results, overwrite)


def _settings(
    similarity: Sequence[str],
    transform: Sequence[str],
    fit_on: str,
    memory: str,
    cache_limit: str | None,
    processes: int | None,
    precision: Precision,
    robustness: bool,
) -> EvaluationSettings:
    from ragcun_cli.evaluate.transform_names import parse_transform

    similarities, names = listed(similarity), listed(transform)
    for flag, values in (("--similarity", similarities), ("--transform", names)):
        if not values:
            raise UsageError(f"{flag}: no value given")
    for value in similarities:
        if value not in SIMILARITIES:
            raise UsageError(f"--similarity {value}: unknown similarity; {did_you_mean(value, SIMILARITIES)}")
    budget = parse_bytes(memory, "--memory")
    if budget < LEAST_MEMORY:
        raise UsageError(f"--memory {memory}: the search needs at least 64MiB")
    limit = None if cache_limit is None else parse_bytes(cache_limit, "--cache-limit")
    if fit_on != "corpus" and not Path(fit_on).is_file():
        raise UsageError(f"--fit-on {fit_on}: no such file", "Give `corpus`, or a file of training triples.")
    transforms = [parse_transform(each) for each in names]

    from ragcun_cli.evaluate.evaluator import EvaluationSettings
    from ragcun_cli.evaluate.scoring import Scheme

    schemes = [Scheme(how, each, fit_on) for each in dict.fromkeys(transforms) for how in dict.fromkeys(similarities)]
    return EvaluationSettings(tuple(schemes), budget, limit, processes, precision, robustness)


def _models(models: Sequence[str], name: str | None, max_length: int | None) -> list[ModelToScore]:
    from ragcun_cli.results.layout import require_name

    if name is not None and len(models) > 1:
        raise UsageError("--name: names one model, but several are given", "Leave it out, or give one --model.")
    if name is not None:
        require_name(name, "--name ")

    from ragcun_cli.evaluate.evaluator import ModelToScore

    return [ModelToScore(model, name, max_length) for model in models]


def _names(datasets: Sequence[str], may_be_empty: bool = False) -> tuple[str, ...]:
    names = listed(datasets)
    if not names and not may_be_empty:
        raise UsageError("--datasets: no dataset given", "`ragcun data list` shows what is available.")
    return names


def _entries(missing: Sequence[Missing]) -> list[dict[str, str]]:
    return [{"name": each.name, "how": each.how} for each in missing]


def _say_next(results: Path) -> None:
    flag = "" if results == Path("results") else f" --results {results}"
    note(f"Written to {results}/. Next: ragcun report table{flag}")
