"""Export a trained model: a folder for sentence-transformers and ONNX with a model card, or a Hub upload."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ragcun_cli import __version__, files
from ragcun_cli.console import note
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.evaluate.models import model_folder
from ragcun_cli.files import expanded
from ragcun_cli.model.sources import HUB_ID, SETTINGS, model_identity
from ragcun_cli.report.collect import ModelResults, collect, has_results
from ragcun_cli.report.model_card import CardFacts, model_card, results_of
from ragcun_cli.runs.folder import (
    BEST_MODEL,
    ENVIRONMENT,
    MODEL_ORIGIN,
    RECIPE,
    STATUS,
    find_environment,
    read_resolved_recipe,
)

CARD = "README.md"
CONFLICT = 409  # the Hub's status when the repository already exists


@dataclass(frozen=True)
class Exported:
    """What an export wrote. onnx_difference: largest deviation from ragcun's own values, None without ONNX.

    results: number of datasets with scores on the card. stale: notes on results from other weights.
    """

    folder: str
    onnx_difference: float | None
    results: int
    stale: tuple[str, ...] = ()


def require_destination(destination: Path, overwrite: bool) -> None:
    """Refuse early if the destination must not be written.

    Raises:
        UsageError: if the folder must not be replaced, or is not an exported model.
    """
    files.require_writable(destination)
    if not destination.exists():
        return
    empty = destination.is_dir() and not any(destination.iterdir())
    # A run's own models have no card and are stored beside the run's status file.
    exported = (destination / SETTINGS).is_file() and (destination / CARD).is_file()
    if not empty and (not exported or (destination.parent / STATUS).is_file()):
        raise UsageError(f"{destination}: already exists and is not an exported model", "Name another folder.")
    if not empty and not overwrite:
        raise UsageError(f"{destination}: the folder already exists", "Give --overwrite to replace it.")


def export_model(
    model: str, destination: Path, onnx: bool, results: Path, licence: str | None, shown_as: str | None
) -> Exported:
    """Write the whole folder or nothing. shown_as: name that the card's example loads (default: the folder's).

    Raises:
        UsageError: if `model` is not a run folder or model folder written by ragcun.
        ModelError: if it is damaged, or its ONNX graph gives different values.
        EnvironmentUnfit: if a package for ONNX is missing.
    """
    folder = model_folder(expanded(model))
    if folder is None or not (folder / SETTINGS).is_file():
        raise UsageError(
            f"{model}: neither a run folder nor a model folder written by ragcun",
            "Name a folder that `ragcun train` wrote, such as checkpoints/isotropy.",
        )
    if folder.resolve() in (destination.resolve(), *destination.resolve().parents):
        raise UsageError(f"{destination}: is inside the model being exported", "Name a folder elsewhere.")
    # Imported after the checks, because torch takes seconds to load.
    from ragcun_cli.model.folder import load_encoder
    from ragcun_cli.model.onnx import export_onnx

    encoder = load_encoder(folder)  # verifies every file's checksum
    every = collect(results) if has_results(results) else []
    measured = results_of(every, model_identity(folder))
    facts = CardFacts(
        name=shown_as or destination.name,
        settings=_settings(folder),
        recipe=_read_recipe(folder),
        step=_read_json(folder / MODEL_ORIGIN).get("step"),
        results=measured,
        licence=licence,
        onnx=onnx,
        version=find_environment(folder.parent / ENVIRONMENT).get("versions", {}).get("ragcun"),
        chosen=folder.name == BEST_MODEL,
    )
    with files.new_folder(destination) as temporary:
        files.copy_files(folder, temporary)
        if onnx:
            note("model.onnx: tracing the model, then comparing its values. This takes a minute or two.")
        difference = export_onnx(encoder, temporary) if onnx else None
        if facts.recipe is not None:
            files.write_text(temporary / RECIPE, yaml.safe_dump(facts.recipe, sort_keys=False, allow_unicode=True))
        files.write_text(temporary / CARD, model_card(facts))
    stale = tuple(each.stale.sentence for each in every if each.stale is not None and _is_of(each, folder))
    return Exported(str(destination), difference, len(measured.datasets) if measured is not None else 0, stale)


def require_repository(repository: str) -> None:
    """Reject a name that the Hub would reject.

    Raises:
        UsageError: if it is not OWNER/NAME.
    """
    if not HUB_ID.match(repository) or "/" not in repository:
        raise UsageError(f"--push {repository}: must be OWNER/NAME, such as my-group/my-encoder")


def push(folder: Path, repository: str, public: bool) -> str:
    """Upload an exported folder as one commit, creating the repository if needed. Return the commit's URL.

    Raises:
        EnvironmentUnfit: if the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        _make_repository(hub, repository, public)
        commit = hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=f"Exported by ragcun {__version__}",
            delete_patterns=["*.onnx", "*.safetensors"],  # an earlier upload's weights
        )
    except UsageError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else ""
        hint = "Set HF_TOKEN to a token with write access to it." if status in (401, 403) else ""
        raise EnvironmentUnfit(f"--push {repository}: the Hub answered {status}: {_first_line(error)}", hint) from None
    except Exception as error:  # the client and its libraries raise a dozen types for one cause
        reason = _first_line(error.__cause__ or error)
        hint = "The exported model is in the folder. To try again, repeat the command with --overwrite."
        raise EnvironmentUnfit(f"--push {repository}: the upload failed: {reason}", hint) from None
    return str(commit.commit_url)


def _make_repository(hub: Any, repository: str, public: bool) -> None:
    """Create or find the repository. `exist_ok` would ask again after a refusal and report another error."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        hub.create_repo(repository, private=not public)
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code != CONFLICT:
            raise
        if not public and not hub.repo_info(repository).private:
            raise UsageError(
                f"--push {repository}: this repository already exists and is public",
                "Add --public if that is what you want.",
            ) from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), repr(error))


def _is_of(model: ModelResults, folder: Path) -> bool:
    """Return whether the results were made from the model in this folder."""
    found = model_folder(expanded(model.entry.found_at or model.entry.path))
    return found is not None and found.resolve() == folder.resolve()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _settings(folder: Path) -> dict[str, Any]:
    settings = _read_json(folder / SETTINGS)
    return {**settings, "base_model": _named(settings["base_model"])}


def _read_recipe(folder: Path) -> dict[str, Any] | None:
    try:
        content = read_resolved_recipe(folder / RECIPE)
    except (OSError, ValueError):
        return None
    if not isinstance(content.get("data"), dict):
        return None
    # Paths on the machine that trained the model do not concern anyone else.
    data = {key: _named(value) for key, value in content["data"].items()} | {"folder": "data"}
    own = {
        "base_model": _named(content.get("base_model")),
        "backup": None,
        "output_dir": f"checkpoints/{content['name']}",
    }
    return content | own | {"data": data}


def _named(value: Any) -> Any:
    """Reduce a local path to its last part; keep a Hub or registry name."""
    is_path = isinstance(value, str) and (value.startswith(("/", ".", "~")) or expanded(value).exists())
    return Path(value).name if is_path else value
