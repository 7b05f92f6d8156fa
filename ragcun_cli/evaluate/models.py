"""Resolve what `--model` names to an encoder and what a result must say about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.files import expanded, given_name, given_path
from ragcun_cli.model.sources import SETTINGS, model_identity
from ragcun_cli.recipe.comparing import digest_but_seed, digest_but_terms
from ragcun_cli.results.json_files import try_json
from ragcun_cli.results.model_entry import ModelEntry, another_model
from ragcun_cli.runs.folder import BEST_MODEL, FINAL_MODEL, RECIPE, read_resolved_recipe

if TYPE_CHECKING:
    from ragcun_cli.model import IsotropicGaussianEncoder

# What the table needs to tell arms apart and to put them in order.
ARM_KEYS = (
    "name",
    "seed",
    "isotropy",
    "lambda_isotropy",
    "lambda_reg",
    "freeze_base",
    "contrastive",
    "temperature",
)


@dataclass(frozen=True)
class ScoredModel:
    """An encoder with the entry that describes it in results.

    frozen: other runs share its backbone, so what it gives for a text is worth keeping.
    """

    encoder: IsotropicGaussianEncoder
    entry: ModelEntry
    frozen: bool


def open_model(
    name: str,
    max_length: int | None = None,
    shown_as: str | None = None,
    precision: str = "float32",
    device: str | None = None,
) -> ScoredModel:
    """Load a run folder (its best model), a model folder of ragcun, or any encoder untouched.

    Args:
        name: a folder, a hub id or `embedded:all-MiniLM-L6-v2`.
        max_length: tokens, where it should differ from the model's own.
        shown_as: the name in results; by default the run's or the encoder's.
        precision: of the passes through the network: float32, bf16 or fp16. Embeddings are float32 in any case.
        device: the fastest one here by default.

    Raises:
        UsageError, ModelError, EnvironmentUnfit: as `ragcun_cli.model.sources.locate_model` says.
    """
    import dataclasses

    from ragcun_cli.model import IsotropicGaussianEncoder
    from ragcun_cli.model.backbone import longest_input
    from ragcun_cli.model.folder import is_ragcun_model, load_encoder
    from ragcun_cli.tensors import best_device

    folder = model_folder(expanded(name))
    if folder is not None and is_ragcun_model(folder):
        encoder = load_encoder(folder)
        identity, kind, arm = model_identity(folder), "trained", _arm(folder)
    else:
        encoder = IsotropicGaussianEncoder.untouched(name)
        identity, kind, arm = encoder.settings.base_identity, "untouched", None
    if max_length is not None:
        limit = longest_input(encoder.network)
        if max_length > limit:
            raise UsageError(
                f"--max-length {max_length}: {name} reads at most {limit} tokens", "Leave it out for the maximum."
            )
        encoder.settings = dataclasses.replace(encoder.settings, max_length=max_length)
    encoder.to(device or best_device())
    if precision == "fp16" and encoder.device.type == "cpu":
        raise EnvironmentUnfit("--precision fp16: a CPU does not support it", "Use float32 or bf16.")
    settings = encoder.settings
    entry = ModelEntry(
        name=shown_as or default_name(name),
        kind=kind,
        identity=identity,
        path=name,
        # What is needed to renew a result: the absolute path, and what was asked for.
        found_at=None if folder is None else str(given_path(expanded(name))),
        asked_name=shown_as or default_name(name),
        asked_max_length=max_length,
        base_model=settings.base_model,
        base_identity=settings.base_identity,
        head=settings.head,
        output_dim=settings.output_dim,
        max_length=settings.max_length,
        unit_norm_features=settings.unit_norm_features,
        tokenizer=type(encoder.tokenizer).__name__,
        tokenizer_sha256=encoder.text_tokenizer.digest,
        precision=precision,
        arm=arm,
    )
    return ScoredModel(encoder, entry, frozen=arm["freeze_base"] if arm is not None else kind == "untouched")


def refuse_early(name: str, shown_as: str | None, max_length: int | None, results: Path, overwrite: bool) -> None:
    """Refuse at once what opening a local model folder would refuse only after the seconds that torch takes.

    Raises:
        UsageError: for texts longer than the model reads, and for results of another model with its name.
    """
    folder = model_folder(expanded(name))
    if folder is None or not (folder / "config.json").is_file():
        return
    positions = try_json(folder / "config.json").get("max_position_embeddings")
    if max_length is not None and isinstance(positions, int) and 0 < positions < max_length:
        raise UsageError(
            f"--max-length {max_length}: {name} has {positions} positions for tokens", "Leave it out for the maximum."
        )
    place = results / (shown_as or default_name(name))
    recorded = ModelEntry.find(place)
    if recorded is not None and not overwrite and recorded.identity != (identity := model_identity(folder)):
        raise another_model(place, {"identity": (recorded.identity, identity)})


def model_folder(path: Path) -> Path | None:
    """Return the folder itself, or a run folder's best model (final model without a dev set); None if there is none."""
    if not path.is_dir():
        return None
    for inner in (BEST_MODEL, FINAL_MODEL):
        if (path / inner).is_dir() and not (path / "config.json").exists():
            return path / inner
    return path


def default_name(name: str) -> str:
    """Return a model's default name in results: the run's name, or the encoder's without its owner."""
    folder = model_folder(expanded(name))
    if folder is not None and (folder / SETTINGS).is_file():
        return _trained_name(folder)
    if folder is not None:
        return given_name(expanded(name))  # also works for `.`
    return name.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]


def _trained_name(folder: Path) -> str:
    name, run = given_name(folder), given_path(folder).parent
    if not (run / RECIPE).is_file():
        return name
    return given_name(run) if name == BEST_MODEL else f"{given_name(run)}-{name}"


def _arm(folder: Path) -> dict[str, Any] | None:
    try:
        recipe = read_resolved_recipe(folder / RECIPE)
        digests = {"recipe": digest_but_seed(recipe), "recipe_but_terms": digest_but_terms(recipe)}
        return {**{key: recipe[key] for key in ARM_KEYS}, **digests, "values": recipe}
    except (OSError, ValueError, KeyError, TypeError):
        return None
