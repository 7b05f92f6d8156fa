"""Whether a result is still of the model that lies where it was scored: weights are replaced, results stay."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.errors import RagcunError
from ragcun_cli.evaluate.models import model_folder
from ragcun_cli.model.sources import EMBEDDED, model_identity
from ragcun_cli.paths import expanded


@dataclass(frozen=True)
class Stale:
    """A model whose results are of other weights, or another use, than what lies at its place now."""

    name: str
    place: str
    renewal: str

    @property
    def sentence(self) -> str:
        """What is wrong, and the command that renews it."""
        return f"{self.name} was scored before {self.place} was changed. Renew it: {self.renewal}"


def staleness(entry: Mapping[str, Any], datasets: Sequence[str], results: Path) -> Stale | None:
    """None where the model is as it was scored, or is no longer at its place: of that nothing is known.

    entry: model.json. datasets: what it was scored or measured on.
    """
    place = str(entry.get("path", ""))
    if not place or place.startswith(EMBEDDED):
        return None
    try:
        folder = model_folder(expanded(place))
        if folder is None or not (folder / "config.json").is_file() or model_identity(folder) == entry["identity"]:
            return None
    except (RagcunError, OSError):
        return None
    return Stale(str(entry["name"]), place, _renewal(entry, datasets, results))


def gone(entry: Mapping[str, Any]) -> bool:
    """Whether a model that was scored in a folder here is no longer there."""
    place = str(entry.get("path", ""))
    is_folder = entry.get("kind") == "trained" or place.startswith(("/", ".", "~"))
    try:
        return is_folder and model_folder(expanded(place)) is None
    except RagcunError:
        return False


def _renewal(entry: Mapping[str, Any], datasets: Sequence[str], results: Path) -> str:
    words = ["ragcun", "eval", "beir", "--model", str(entry["path"]), "--datasets", ",".join(datasets)]
    if entry["transform"] != "none":
        words += ["--transform", str(entry["transform"])]
    if entry.get("fit_on") not in (None, "corpus"):
        words += ["--fit-on", str(entry["fit_on"])]
    if entry["similarity"] != "euclidean":
        words += ["--similarity", str(entry["similarity"])]
    if results != Path("results"):
        words += ["--results", str(results)]
    return shlex.join([*words, "--overwrite"])
