"""What a run does on its machines: the resolved recipes, the data they need, and what is scored at the end."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.aws.launch_record import Precision
from ragcun_cli.data.naming import is_zip
from ragcun_cli.data.registry import DOWNLOADS, GROUPS, KNOWN, TRAINING
from ragcun_cli.data.sources import PREFIX, available_collections, collection_in, source_path
from ragcun_cli.errors import UsageError
from ragcun_cli.files import expanded, given_name, sha256_of_file
from ragcun_cli.recipe.encoder_shapes import EncoderShape, shape_of
from ragcun_cli.recipe.problems import did_you_mean
from ragcun_cli.recipe.rendering import render_recipe
from ragcun_cli.recipe.schema import Recipe

EMBEDDED_TRIPLES = 400  # roughly: these collections are built from the machine's Python code


@dataclass(frozen=True)
class Input:
    """One of the user's files or folders, which the machine gets below `inputs/`."""

    path: Path
    key: str


@dataclass(frozen=True)
class Job:
    """The work. recipes: as the machine trains them. seeds: from the command line. datasets: for `ragcun eval beir`.

    downloads: for `ragcun data download`. inputs: what is uploaded. triples, shapes: by recipe name, the number of
    training triples and the encoder's shape.
    """

    recipes: tuple[Recipe, ...]
    seeds: tuple[int, ...]
    datasets: str
    downloads: tuple[str, ...]
    precision: Precision
    inputs: tuple[Input, ...]
    triples: dict[str, int | None]
    shapes: dict[str, EncoderShape]

    @property
    def runs(self) -> int:
        """The number of trainings over all recipes and seeds."""
        return sum(self.runs_of(recipe) for recipe in self.recipes)

    @property
    def only_downloads(self) -> bool:
        """Whether it trains nothing, but keeps downloads in the bucket (`aws stage`)."""
        return not self.recipes

    def runs_of(self, recipe: Recipe) -> int:
        """Return the number of trainings of one recipe: one per seed."""
        return len(self.seeds or recipe.seeds or (recipe.seed,))

    @property
    def base_models(self) -> tuple[str, ...]:
        """The encoders that are scored untouched alongside the arms."""
        return tuple(dict.fromkeys(recipe.base_model for recipe in self.recipes))

    def rendered(self) -> dict[str, str]:
        """Return the text of each recipe, by name."""
        return {recipe.name: render_recipe(recipe) for recipe in self.recipes}


def make_job(
    recipes: Sequence[Recipe], seeds: Sequence[int], datasets: str | None, precision: Precision, backup: str
) -> Job:
    """Rewrite recipes for a machine: with its own folders, a backup in the run's prefix, and its paths of inputs.

    Raises:
        UsageError: if two recipes share a name, or name data that is not here and that the machine cannot get.
    """
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise UsageError(f"--recipe: two recipes are called {max(names, key=names.count)}", "Give each its own name.")
    inputs: dict[str, Input] = {}
    rewritten = tuple(_for_machine(recipe, backup, inputs) for recipe in recipes)
    folder = expanded(recipes[0].data.folder)
    wanted = [each.strip() for each in (datasets or _usual_datasets(recipes)).split(",") if each.strip()]
    scored = [name if _can_be_had(name) else _as_input(name, "--datasets", inputs, folder) for name in wanted]
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


def staging_job(downloads: Sequence[str]) -> Job:
    """Return the job of a machine that only downloads, and keeps what it gets in the bucket."""
    return Job((), (), "", tuple(downloads), "float32", (), {}, {})


def _for_machine(recipe: Recipe, backup: str, inputs: dict[str, Input]) -> Recipe:
    if "wandb" in recipe.trackers:
        raise UsageError(
            f"recipe {recipe.name}: trackers: wandb needs a key, and keys are never passed to a machine",
            "Use --set trackers=[tensorboard] or []; metrics.jsonl is saved in any case.",
        )
    base, folder = recipe.base_model, expanded(recipe.data.folder)
    if expanded(base).exists() and not base.startswith(PREFIX):
        base = _as_input(base, f"recipe {recipe.name}: base_model", inputs, folder)
    data = {"folder": "data"}
    for key in ("train", "dev"):
        value = getattr(recipe.data, key)
        if value is not None and not _is_known(value):
            data[key] = _as_input(value, f"recipe {recipe.name}: data.{key}", inputs, folder)
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
    """Return BEIR's public sets, or the training sets if all are collections that the machine builds itself."""
    trained_on = {recipe.data.train for recipe in recipes}
    made = all(name.startswith(PREFIX) for name in trained_on)
    return ",".join(sorted(trained_on)) if made else "public"


def _can_be_had(name: str) -> bool:
    return name in GROUPS or name.startswith(PREFIX) or (name in KNOWN and KNOWN[name].md5 is not None)


def _as_input(value: str, where: str, inputs: dict[str, Input], folder: Path) -> str:
    """Return an input's path on the machine, relative to where it trains. folder: the data folder, for names."""
    path = _place(value, folder)
    if not path.exists() and value in KNOWN:
        raise UsageError(
            f"{where}: {value} is licensed, so no machine can download it",
            f"Turn it into a folder with `ragcun data import {value}` and give that folder's path: it is uploaded.",
        )
    if not path.exists():
        raise UsageError(
            f"{where}: {value} is neither here nor a name that can be downloaded; {_meant(value, folder)}",
            "To upload a file or folder of yours with the run, give its path.",
        )
    key = f"inputs/{_digest(path)[:12]}/{given_name(path)}"
    inputs[key] = Input(path, key)
    return key


def _place(value: str, folder: Path) -> Path:
    path = expanded(value)
    if path.exists() or path.parent != Path():
        return path
    return collection_in(folder, value) or path


def _meant(value: str, folder: Path) -> str:
    return did_you_mean(value, list(dict.fromkeys([*available_collections(folder), *TRAINING, *GROUPS, *KNOWN])))


def _digest(path: Path) -> str:
    if path.is_file():
        return sha256_of_file(path)
    parts = [f"{each.relative_to(path).as_posix()} {sha256_of_file(each)}" for each in files_below(path)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def files_below(path: Path) -> Iterator[Path]:
    """Yield the file itself, or all files in the folder."""
    if path.is_file():
        yield path
        return
    yield from (each for each in sorted(path.rglob("*")) if each.is_file())


def _download_name(name: str) -> str:
    if name in GROUPS:
        return "beir" if name == "public" else "all"
    return KNOWN[name].download_name


def files_of_download(name: str) -> list[tuple[str, int]]:
    """Return each file's path in a data folder and its bytes, for a name or group of `ragcun data download`."""
    found = []
    for each in DOWNLOADS.get(name, (name,)):
        if each in TRAINING:
            found += [(source_path(Path(), each, file).as_posix(), file.bytes) for file in TRAINING[each].files]
        else:
            known = next(row for row in KNOWN.values() if row.download_name == each)
            found.append((f"{known.name}.zip", known.zip_bytes or 0))
    return found


def count_triples(recipe: Recipe) -> int | None:
    """Count the triples of the user's recipe; return None if they cannot be counted before the training."""
    import pyarrow

    name = recipe.data.train
    if name in TRAINING:
        return TRAINING[name].rows
    if name.startswith(PREFIX):
        return EMBEDDED_TRIPLES
    path = _place(name, expanded(recipe.data.folder))
    try:
        if is_zip(path):
            with zipfile.ZipFile(path) as archive:
                inside = next(each for each in archive.namelist() if each.endswith("qrels/train.tsv"))
                with archive.open(inside) as lines:
                    return sum(1 for _ in lines) - 1
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return int(parquet.read_metadata(path).num_rows)
        if path.suffix in (".jsonl", ".tsv", ".csv"):
            with path.open("rb") as lines:
                return sum(1 for _ in lines)
        with (path / "qrels" / "train.tsv").open("rb") as lines:
            return sum(1 for _ in lines) - 1
    except (OSError, pyarrow.ArrowException, zipfile.BadZipFile, StopIteration):
        return None
