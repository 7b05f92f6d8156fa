"""A Hugging Face tokenizer in the form that the token cache needs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.token_cache import TextTokenizer, Tokenised
from ragcun_cli.errors import ModelError
from ragcun_cli.files import sha256_of_file
from ragcun_cli.model.sources import locate_model

# Arguments of a tokenizer that say where it came from, not what it does.
PLACES = frozenset({"name_or_path", "local_files_only", "is_local", "backend", "tokenizer_file", "use_fast"})


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> Tokenised:
    """Token ids of each text, special tokens included, cut to `max_length`."""
    if not texts:
        return Tokenised([], 0)
    encoded: Any = tokenizer(list(texts), truncation=True, max_length=max_length, padding=False, verbose=False)
    ids: list[list[int]] = encoded["input_ids"]
    if encoded.encodings is None:  # a Python tokenizer does not say; a text of exactly max_length counts too
        return Tokenised(ids, sum(len(each) >= max_length for each in ids))
    return Tokenised(ids, sum(bool(each.overflowing) for each in encoded.encodings))


def text_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int, vocabulary: int) -> TextTokenizer:
    """The tokenizer, cutting texts to `max_length` tokens, for a model that knows `vocabulary` tokens."""
    return TextTokenizer(
        lambda texts: tokenise(tokenizer, texts, max_length), _digest(tokenizer), vocabulary, max_length
    )


def token_counter(model: str) -> Callable[[Sequence[str]], Numbers]:
    """Return a function that counts each text's tokens, special tokens included, nothing cut.

    Raises:
        RagcunError: as `locate_model` says, or if its folder has no tokenizer.
    """
    folder = locate_model(model).folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{model}: its tokenizer cannot be read: {str(error).splitlines()[0]}") from None

    def count(texts: Sequence[str]) -> Numbers:
        ids: Any = tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"] if texts else []
        return np.array([len(each) for each in ids], dtype=np.int64)

    return count


def _digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hex sha256 of everything that decides a text's tokens."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and hasattr(backend, "to_str"):
        content = json.loads(backend.to_str())
        # How the last call cut and padded is not a property of the tokenizer.
        content.pop("truncation", None)
        content.pop("padding", None)
    else:
        # For a tokenizer in Python, only its files and arguments say what it makes of a text.
        arguments: dict[str, Any] = dict(getattr(tokenizer, "init_kwargs", {}))
        folder = Path(str(tokenizer.name_or_path))
        paths = {
            name: Path(str(getattr(tokenizer, name, None) or arguments.pop(name, None) or folder / file))
            for name, file in tokenizer.vocab_files_names.items()
        }
        content = {
            "class": type(tokenizer).__name__,
            "vocabulary": tokenizer.get_vocab(),
            "files": {name: sha256_of_file(path) for name, path in paths.items() if path.is_file()},
            "arguments": {name: str(value) for name, value in arguments.items() if name not in PLACES},
        }
    content["truncation_side"] = tokenizer.truncation_side
    content["library"] = importlib.metadata.version("tokenizers")
    content["special"] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
