"""`ragcun eval`: score models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ragcun_cli.commands import completion
from ragcun_cli.commands.choices import Precision
from ragcun_cli.commands.lists import listed
from ragcun_cli.imports import collector_at_rest

if TYPE_CHECKING:
    from ragcun_cli.evaluate.beir import Measured, ModelToScore, Settings
    from ragcun_cli.evaluate.datasets import Dataset, Missing
    from ragcun_cli.evaluate.selfcheck import Check
    from ragcun_cli.results.dataset_result import DatasetResult

LEAST_MEMORY = 64 << 20

app = typer.Typer(
    no_args_is_help=True, help="Score models, measure their isotropy, and check that the scores are right."
)

MODELS = typer.Option(
    ...,
    "--model",
    "-m",
    help="A run folder, a model folder, a hub id or embedded:all-MiniLM-L6-v2. May be repeated.",
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
DATA_DIR = typer.Option(Path("data"), "--data-dir", help="Where named datasets lie, as folders or zips.")
RESULTS = typer.Option(Path("results"), "--results", help="Where results are written.")
SPLIT = typer.Option(None, "--split", help="Which split to score: `test` by default, `dev` for msmarco.")
NAME = typer.Option(None, "--name", help="What one model is called in results.")
MAX_LENGTH = typer.Option(None, "--max-length", min=2, help="Tokens of a text, if not the model's.")
SIMILARITIES = ["euclidean", "cosine"]
SIMILARITY = typer.Option(
    ["euclidean"], "--similarity", help="euclidean, cosine or both, comma-separated: each is a row of its own."
)
TRANSFORM = typer.Option(
    ["none"],
    "--transform",
    help="What is done to embeddings first: none, center, whiten:ALPHA (from 0 to 2, such as whiten:0.5), int8, "
    "binary or truncate:D; comma-separated: each is a row of its own.",
)
FIT_ON = typer.Option(
    "corpus", "--fit-on", help="What center, whiten and int8 are fitted on: `corpus`, or a file of training triples."
)
MEMORY = typer.Option(
    "1GiB", "--memory", help="What the search may take, besides the model; such as 4GiB. At least 64MiB."
)
CACHE_LIMIT = typer.Option(
    None, "--cache-limit", help="Disk space for cached embeddings, such as 50GiB; the least recently used go first."
)
PROCESSES = typer.Option(
    None, "--processes", min=1, help="Processes that encode and search; one for each GPU, or one, by default."
)
PRECISION = typer.Option(
    "float32", "--precision", help="Of the encoder: float32, bf16 or fp16. Published figures are float32."
)
OVERWRITE = typer.Option(False, "--overwrite", help="Replace results of another model of the same name.")
RECOMPUTE = typer.Option(False, "--recompute", help="Score again even where an up-to-date result exists.")
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
        False, "--no-robustness", help="Without nDCG@10 after int8, binary and truncation to 256 and 128 dimensions."
    ),
    memory: str = MEMORY,
    cache_limit: str | None = CACHE_LIMIT,
    processes: int | None = PROCESSES,
    precision: Precision = PRECISION,
    overwrite: bool = OVERWRITE,
    recompute: bool = RECOMPUTE,
    json_output: bool = JSON,
) -> None:
    """Score models by exact search: nDCG, MAP, Recall, Precision, MRR as trec_eval computes them, and isotropy.

    A run folder means its best model. An encoder that ragcun did not train is scored untouched, as its authors use it.
    Embeddings and results are kept: an interrupted evaluation goes on where it was, a second one computes nothing.
    Datasets that are not here are listed with what brings them; no average is taken over an incomplete set.
    Example: ragcun eval beir --model checkpoints/isotropy --datasets scifact,nfcorpus
    """
    from ragcun_cli.console import print_json

    found, missing = _datasets(models, datasets, data_dir, split)
    with collector_at_rest():  # torch is imported, once the flags are right
        settings = _settings(
            similarity, transform, fit_on, memory, cache_limit, processes, precision, not no_robustness
        )
        to_score = _models(models, name, max_length)

    from ragcun_cli.evaluate.beir import averages, evaluate_models

    written = evaluate_models(to_score, found, results, settings, overwrite, recompute)
    means = averages(written)
    if json_output:
        print_json({"results": [each.content() for each in written], "averages": means, "missing": _entries(missing)})
        return
    _print_results(written, means)
    _print_missing(missing)
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
    """Measure how isotropic embeddings are, of passages and queries apart, without scoring them.

    Takes what `eval beir` kept, and encodes what it has not. `eval beir` measures the same along the way.
    Example: ragcun eval isotropy --model checkpoints/isotropy --datasets scifact
    """
    from ragcun_cli.console import note, print_json

    found, missing = _datasets(models, datasets, data_dir, split)
    settings = _settings(similarity, transform, fit_on, memory, cache_limit, processes, precision, False)
    to_score = _models(models, name, max_length)

    from ragcun_cli.evaluate.beir import measure_models

    measured = measure_models(to_score, found, results, settings, overwrite, recompute)
    if json_output:
        print_json({"isotropy": [each.content() for each in measured], "missing": _entries(missing)})
        return
    _print_isotropy(measured)
    _print_missing(missing)
    note(f"Written to {results}/<model>/isotropy.json and <dataset>.spectrum.tsv.")


@app.command()
def selfcheck(
    model: str = typer.Option(
        "embedded:all-MiniLM-L6-v2",
        "--model",
        "-m",
        help="all-MiniLM-L6-v2 or all-mpnet-base-v2: embedded, hub id or folder.",
    ),
    datasets: list[str] = typer.Option(
        [], "--datasets", "-d", help="Names or paths; by default all that have a published score and are in --data-dir."
    ),
    data_dir: Path = DATA_DIR,
    json_output: bool = JSON,
) -> None:
    """Compare a known model's scores with the published ones: 0.0005 off is a failure, with exit code 1.

    Example: ragcun eval selfcheck --datasets scifact
    """
    import tempfile

    from ragcun_cli.console import print_json
    from ragcun_cli.evaluate.selfcheck import selfcheck as check

    with tempfile.TemporaryDirectory(prefix="ragcun-selfcheck-") as results:
        checks = check(model, _names(datasets, may_be_empty=True), data_dir, Path(results))
    if json_output:
        print_json([{**each.__dict__, "passed": each.passed} for each in checks])
    else:
        _print_checks(checks)
    if any(each.measured is not None and not each.passed for each in checks):
        raise typer.Exit(1)


def _datasets(
    models: Sequence[str], datasets: Sequence[str], data_dir: Path, split: str | None
) -> tuple[list[Dataset], list[Missing]]:
    """The collections; what can be refused of models and datasets is, before torch is imported."""
    from ragcun_cli.evaluate.datasets import find_datasets
    from ragcun_cli.model.sources import require_model, require_place

    for model in models:
        require_place(model)
    found = find_datasets(_names(datasets), data_dir, split)
    for model in models:  # a hub's may have to be fetched
        require_model(model)
    return found


def _settings(
    similarity: Sequence[str],
    transform: Sequence[str],
    fit_on: str,
    memory: str,
    cache_limit: str | None,
    processes: int | None,
    precision: Precision,
    robustness: bool,
) -> Settings:
    from ragcun_cli.errors import UsageError
    from ragcun_cli.evaluate.transform_names import parse_transform
    from ragcun_cli.quantities import parse_bytes
    from ragcun_cli.recipe.problems import did_you_mean

    similarities, names = listed(similarity), listed(transform)
    for flag, values in (("--similarity", similarities), ("--transform", names)):
        if not values:
            raise UsageError(f"{flag}: nothing is named")
    for value in similarities:
        if value not in SIMILARITIES:
            raise UsageError(f"--similarity {value}: there is no such similarity; {did_you_mean(value, SIMILARITIES)}")
    budget = parse_bytes(memory, "--memory")
    if budget < LEAST_MEMORY:
        raise UsageError(f"--memory {memory}: the search needs at least 64MiB")
    limit = None if cache_limit is None else parse_bytes(cache_limit, "--cache-limit")
    if fit_on != "corpus" and not Path(fit_on).is_file():
        raise UsageError(f"--fit-on {fit_on}: there is no such file", "Give `corpus`, or a file of training triples.")
    transforms = [parse_transform(each) for each in names]

    from ragcun_cli.evaluate.beir import Settings
    from ragcun_cli.evaluate.scoring import Scheme

    schemes = [Scheme(how, each, fit_on) for each in dict.fromkeys(transforms) for how in dict.fromkeys(similarities)]
    return Settings(tuple(schemes), budget, limit, processes, precision, robustness)


def _models(models: Sequence[str], name: str | None, max_length: int | None) -> list[ModelToScore]:
    from ragcun_cli.errors import UsageError
    from ragcun_cli.results.layout import require_name

    if name is not None and len(models) > 1:
        raise UsageError("--name: names one model, and several are given", "Leave it out, or give one --model.")
    if name is not None:
        require_name(name, "--name ")

    from ragcun_cli.evaluate.beir import ModelToScore

    return [ModelToScore(model, name, max_length) for model in models]


def _names(datasets: Sequence[str], may_be_empty: bool = False) -> tuple[str, ...]:
    from ragcun_cli.errors import UsageError

    names = listed(datasets)
    if not names and not may_be_empty:
        raise UsageError("--datasets: no dataset is named", "`ragcun data list` shows what there is.")
    return names


def _print_results(written: Sequence[DatasetResult], means: list[dict[str, Any]]) -> None:
    from ragcun_cli.console import Column, note, plain, print_table

    headers = ["nDCG@10", "Recall@100", "MAP", "MRR", "judged@10", "IsoScore"]
    columns = [Column("model"), Column("dataset"), *(Column(header, numeric=True) for header in headers)]
    rows = []
    for result in written:
        metrics = result.metrics
        figures = [f"{metrics[key]:.4f}" for key in ("ndcg@10", "recall@100", "map", "mrr", "judged@10")]
        isoscore = ((result.isotropy or {}).get("passages") or {}).get("isoscore")
        shown = "-" if isoscore is None else f"{isoscore:.3f}"
        rows.append([plain(result.model.name), plain(_scored_on(result)), *figures, shown])
    for mean in means:
        rows.append([plain(mean["model"]), f"mean of {mean['over']}", f"{mean['ndcg@10']:.4f}", *["-"] * 5])
    print_table(columns, rows)
    for result in written:
        if sentence := _ties_sentence(result):
            note(sentence)
    _print_robustness(written)


def _scored_on(result: DatasetResult | Measured) -> str:
    from ragcun_cli.results.layout import scored_on

    return scored_on(result.name, result.split, result.queries)


def _ties_sentence(result: DatasetResult) -> str:
    """What another order of equally distant passages would give; empty where it changes nothing that is shown."""
    from ragcun_cli.results.layout import ties_sentence

    sentence = ties_sentence(result.ties, "ndcg@10", "nDCG@10")
    return f"{result.model.name} on {_scored_on(result)}: {sentence}" if sentence else ""


def _print_robustness(written: Sequence[DatasetResult]) -> None:
    from ragcun_cli.console import Column, plain, print_table

    kinds = list(dict.fromkeys(kind for result in written for kind in result.robustness))
    if not kinds:
        return
    columns = [Column("nDCG@10 after"), Column("dataset"), *(Column(kind, numeric=True) for kind in ["none", *kinds])]
    rows = []
    for result in written:
        after = {"none": result.metrics["ndcg@10"], **result.robustness}
        figures = ["-" if after.get(kind) is None else f"{after[kind]:.4f}" for kind in ["none", *kinds]]
        rows.append([plain(result.model.name), plain(_scored_on(result)), *figures])
    print_table(columns, rows)


def _print_isotropy(measured: Sequence[Measured]) -> None:
    from ragcun_cli.console import Column, plain, print_table

    shown = {
        "IsoScore": "isoscore",
        "mean cosine": "mean_cosine",
        "std": "standard_deviation",
        "eff. rank": "effective_rank",
        "of texts": "effective_rank_texts",
        "uniformity": "uniformity",
        "EP excess": "epps_pulley_excess",
    }
    headers = ["N", "D", *shown, "IsoScore 95 %", "alignment", "hubness"]
    columns = [Column("model"), Column("dataset"), Column("of"), *(Column(header, numeric=True) for header in headers)]
    rows = []
    for each in measured:
        shape = each.isotropy or {}
        for side in ("passages", "queries"):
            cloud = shape.get(side)
            if cloud is None:
                continue
            figures = ["-" if cloud[key] is None else f"{cloud[key]:.4g}" for key in shown.values()]
            interval = "-" if cloud["interval"] is None else "{:.3f}-{:.3f}".format(*cloud["interval"])
            names = [plain(each.model.name), plain(_scored_on(each)), side]
            # Of both sides together, so they stand once.
            both = [shape[key] if side == "passages" else None for key in ("alignment", "hubness")]
            ends = ["-" if value is None else f"{value:.4g}" for value in both]
            rows.append([*names, str(cloud["texts"]), str(cloud["dimensions"]), *figures, interval, *ends])
    print_table(columns, rows)


def _print_missing(missing: Sequence[Missing]) -> None:
    from ragcun_cli.console import note

    if missing:
        note(f"{len(missing)} datasets are not here:")
    for each in missing:
        note(f"  {each.name}: {each.how}")


def _print_checks(checks: Sequence[Check]) -> None:
    from ragcun_cli.console import Column, note, print_table

    columns = [Column("dataset"), *(Column(header, numeric=True) for header in ("published", "measured")), Column("")]
    print_table(
        columns,
        [
            [each.dataset, f"{each.published:.5f}", f"{each.measured:.5f}", "pass" if each.passed else "FAIL"]
            for each in checks
            if each.measured is not None
        ],
    )
    for each in checks:
        if each.measured is None:
            note(f"  {each.dataset} is not here: {each.how}")


def _entries(missing: Sequence[Missing]) -> list[dict[str, str]]:
    return [{"name": each.name, "how": each.how} for each in missing]


def _say_next(results: Path) -> None:
    from ragcun_cli.console import note

    flag = "" if results == Path("results") else f" --results {results}"
    note(f"Written to {results}/. Next: ragcun report table{flag}")
