"""model.json: which model was scored, with what, and how its embeddings were compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli import files
from ragcun_cli.data.cache import key_of
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.results.json_files import find_json, read_json
from ragcun_cli.results.layout import FORMAT, MODEL

# These and the tokenizer decide a figure: two entries that differ here are two different models.
IDENTIFYING = ("identity", "max_length", "output_dim", "precision", "similarity", "transform", "fit_sha256")
SHOWN = 19  # characters of a value: a digest's beginning
REQUIRED = ("name", "kind", "arm", "tokenizer_sha256", *IDENTIFYING)


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One row of a table, for one seed; the fields are the file's keys, in order.

    kind: `trained` by ragcun, or `untouched`. identity: of the files that decide an embedding. path: the model as it
    was named; found_at: its absolute path then, None for a hub or embedded model. asked_name, asked_max_length: what
    the command asked for. base_model, base_identity: what training started from. output_dim: of what is compared, after
    a transform. arm: what the recipe said, None for an untouched encoder. fit_on: what the transform was fitted on.
    """

    name: str
    kind: str
    identity: str
    path: str = ""
    found_at: str | None = None
    asked_name: str
    asked_max_length: int | None = None
    base_model: str | None = None
    base_identity: str | None = None
    head: str | None = None
    output_dim: int
    max_length: int
    unit_norm_features: bool | None = None
    tokenizer: str | None = None
    tokenizer_sha256: str
    precision: str
    arm: dict[str, Any] | None
    similarity: str = "euclidean"
    transform: str = "none"
    fit_on: str | None = None
    fit_sha256: str | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ModelEntry:
        """Make an entry from JSON, including that of earlier versions, which had fewer keys.

        Raises:
            KeyError: naming a missing key that every entry must have.
        """
        for key in REQUIRED:
            content[key]
        names = {each.name for each in dataclasses.fields(cls)}
        known = {key: value for key, value in content.items() if key in names}
        return cls(**{"asked_name": content["name"], **known})

    @classmethod
    def read(cls, folder: Path) -> ModelEntry:
        """Read the file, strictly.

        Raises:
            DataError: if the folder's file cannot be read or lacks a key.
        """
        content = read_json(folder / MODEL)
        try:
            return cls.of(content)
        except KeyError as error:
            raise DataError(f"{folder / MODEL}: the key {error} is missing", "Evaluate again.") from None

    @classmethod
    def find(cls, folder: Path) -> ModelEntry | None:
        """Read the folder's entry; None if it has none or it cannot be read."""
        content = find_json(folder / MODEL)
        try:
            return None if content is None else cls.of(content)
        except KeyError:
            return None

    def write(self, folder: Path) -> None:
        """Write the entry into the folder's file."""
        files.write_json(folder / MODEL, self.content())

    def content(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}

    @property
    def is_plain(self) -> bool:
        """Whether embeddings are compared as the model gives them, by Euclidean distance."""
        return (self.transform, self.similarity) == ("none", "euclidean")

    @property
    def suffix(self) -> str:
        """What an evaluation appended to the requested name, for a transform or a similarity."""
        return self.name.removeprefix(self.asked_name)

    def renamed(self, name: str) -> ModelEntry:
        """Return this entry under another name, which ends in `suffix`."""
        return dataclasses.replace(self, name=name, asked_name=name.removesuffix(self.suffix))

    def differing(self, other: ModelEntry) -> list[str]:
        """Return the keys whose values make these two different models."""
        return [key for key in IDENTIFYING if getattr(self, key) != getattr(other, key)]

    def fingerprint(self, dataset_sha256: str, split: str) -> str:
        """Return a digest of all that decides a result's figures: results with the same one must be equal."""
        return key_of(
            format=FORMAT,
            dataset=dataset_sha256,
            split=split,
            tokenizer=self.tokenizer_sha256,
            **{key: getattr(self, key) for key in IDENTIFYING},
        )


def another_model(folder: Path, differing: Mapping[str, tuple[object, object]]) -> UsageError:
    """Return the error for a folder that has results of another model of this name. differing: key -> there, here."""
    shown = [f"{key} {str(there)[:SHOWN]} there, {str(here)[:SHOWN]} here" for key, (there, here) in differing.items()]
    return UsageError(
        f"{folder}: holds results of another model of this name: {', '.join(shown) or 'it does not say which'}",
        "Give --overwrite to replace them, or --name to keep both.",
    )
