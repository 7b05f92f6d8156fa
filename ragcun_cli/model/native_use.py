"""How an encoder's authors use it, according to the files that sentence-transformers keeps beside the weights.

A declared feature that ragcun lacks is refused by name: without it, the encoder would look worse than it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.errors import ModelError

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
# The first that exists counts; sentence-transformers looks for them in this order.
TEXT_SETTINGS = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
POINTER_FILES = (MODULES, PROMPTS)  # in a run folder: they tell sentence-transformers where its model is
OWN_PACKAGE = "sentence_transformers."
PROMPTS_OF_RETRIEVAL = ("query", "document", "passage", "corpus")
CHAINS = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
FORM = "Use an encoder made of Transformer, mean Pooling and, optionally, Normalize."
# The text settings that are read here, and the values of others that change nothing.
READ = frozenset({"max_seq_length", "do_lower_case", "query_length", "document_length"})
ARGUMENTS = ("tokenizer_args", "tokenizer_kwargs", "processor_kwargs")
HARMLESS_ARGUMENTS = frozenset({"model_max_length", "use_fast", "trust_remote_code"})
MEANS_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
}


@dataclass(frozen=True)
class NativeUse:
    """An encoder's declared use. unit_norm: Normalize follows pooling. max_length: tokens, special ones included; 0 if
    unspecified. lower_case: texts are lower-cased before they are tokenised, whatever the tokenizer does.
    """

    unit_norm: bool = False
    max_length: int = 0
    lower_case: bool = False


def native_use(folder: Path) -> NativeUse:
    """Read how an encoder is used by its authors.

    Raises:
        ModelError: naming the declared feature that is not supported, or the file that is malformed.
    """
    try:
        _refuse_code(folder)
        unit_norm = _chain(folder)
        _refuse_prompts(folder)
        return _text_settings(folder, unit_norm)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{folder}: {MODULES} or a file it names is malformed ({error!r})") from None


def declares_lower_case(folder: Path) -> bool:
    """Whether texts are lower-cased before the folder's tokenizer gets them."""
    path = next((folder / name for name in TEXT_SETTINGS if (folder / name).is_file()), None)
    return path is not None and bool(_read(path, {}).get("do_lower_case"))


def _refuse_code(folder: Path) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        if _read(folder / name, {}).get("auto_map"):
            raise ModelError(
                f"{folder / name}: this model is defined by its authors' own Python code (auto_map)",
                "ragcun runs no code from a model folder, and the library's own class would only resemble it.",
            )
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder}: is an adapter for another model (adapter_config.json)",
            "Merge it into its base model (peft's merge_and_unload), save that, and name its folder.",
        )


def _chain(folder: Path) -> bool:
    """Whether the modules end in Normalize; without modules.json, the plain mean is used."""
    modules = _read(folder / MODULES, [])
    kinds = []
    for module in modules:
        kind = str(module["type"])
        if not kind.startswith(OWN_PACKAGE):
            raise ModelError(
                f"{folder / MODULES}: {kind} is a module from another package",
                "ragcun never runs code that comes with a model. " + FORM,
            )
        kinds.append(kind.rsplit(".", 1)[-1])
    if kinds and kinds not in CHAINS:
        unknown = next((kind for kind in kinds if kind not in CHAINS[1]), None)
        what = f"has a {unknown} module" if unknown else f"has the modules {', '.join(kinds)}"
        raise ModelError(f"{folder}: its {MODULES} {what}, which ragcun does not reproduce", FORM)
    if kinds and modules[0]["path"]:
        raise ModelError(f"{folder}: its weights are in {modules[0]['path']}/", "Give that folder instead.")
    if kinds:
        _require_mean_pooling(folder, folder / modules[1]["path"] / "config.json")
    return "Normalize" in kinds


def _require_mean_pooling(folder: Path, path: Path) -> None:
    config = _read(path, {})
    # Two spellings: one flag per mode until sentence-transformers 5, one word since 6.
    mean = config.get("pooling_mode_mean_tokens", config.get("pooling_mode", "mean") == "mean")
    others = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if not mean or others not in ([], ["pooling_mode_mean_tokens"]):
        raise ModelError(
            f"{folder}: this model does not use mean pooling",
            "ragcun compares mean-pooled encoders; with mean pooling, this one would look worse than it is.",
        )


def _refuse_prompts(folder: Path) -> None:
    """Refuse prompts that sentence-transformers puts before every text, before queries, or before passages."""
    declared = _read(folder / PROMPTS, {})
    for name in (declared.get("default_prompt_name") or "", *PROMPTS_OF_RETRIEVAL):
        if prompt := (declared.get("prompts") or {}).get(name):
            raise ModelError(
                f"{folder / PROMPTS}: this model expects prompts ({name}: {prompt!r})",
                "ragcun adds no prompts, so scores would be too low. To score it without them, set prompts to {}.",
            )


def _text_settings(folder: Path, unit_norm: bool) -> NativeUse:
    path = next((folder / name for name in TEXT_SETTINGS if (folder / name).is_file()), folder / TEXT_SETTINGS[0])
    settings = _read(path, {})
    arguments: dict[str, Any] = {}
    for key, value in settings.items():
        if key in ARGUMENTS:
            arguments |= value or {}
        elif key not in READ and value and value not in MEANS_NOTHING.get(key, ()):
            raise ModelError(f"{path}: {key} is {value!r}, which is not supported", FORM)
    if unknown := sorted(key for key, value in arguments.items() if key not in HARMLESS_ARGUMENTS and value):
        raise ModelError(f"{path}: its tokenizer settings {', '.join(unknown)} are not supported", FORM)
    lengths = {settings.get("query_length"), settings.get("document_length")} - {None}
    if len(lengths) > 1 or (lengths and None in (settings.get("query_length"), settings.get("document_length"))):
        raise ModelError(
            f"{path}: queries are cut at {settings.get('query_length')} tokens and passages at "
            f"{settings.get('document_length')}",
            "ragcun cuts both at one length: give it with --max-length after removing both keys from the file.",
        )
    length = int(next(iter(lengths), arguments.get("model_max_length") or settings.get("max_seq_length") or 0))
    if length < 0 or length == 1:
        raise ModelError(f"{path}: texts are cut at {length} tokens", "Use 2 or more; 0 or null is the model's own.")
    return NativeUse(unit_norm, length, bool(settings.get("do_lower_case")))


def _read(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON ({error})") from None
