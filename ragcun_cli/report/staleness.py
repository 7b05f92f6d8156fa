"""Find out whether a model has changed since it was scored: weights get replaced while results stay."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ragcun_cli.data.registry import known_dataset
from ragcun_cli.errors import RagcunError
from ragcun_cli.evaluate.models import default_name, model_folder
from ragcun_cli.model.sources import model_identity
from ragcun_cli.results.model_entry import ModelEntry

MARK = " (stale)"  # after the name of a row
ABOUT_STALENESS = re.compile(
    r" was scored before .* was changed\. Renew it: "
    r"| (was|were) scored with .*: it is unknown whether (it has|they have) changed\.$"
)


@dataclass(frozen=True)
class ScoredDataset:
    """A dataset that was scored. found_at: its absolute path at that time; None if only its name is known."""

    name: str
    split: str
    found_at: str | None = None


@dataclass(frozen=True)
class Stale:
    """A model that is not, or may not be, the one that was scored.

    state: changed: its place now has other weights, config or tokenizer. gone: it has nothing. unreadable: what is
    there is not a complete model.
    """

    name: str
    place: str
    state: Literal["changed", "gone", "unreadable"]
    renewal: str

    @property
    def sentence(self) -> str:
        """What is wrong, and how to fix it."""
        if self.state == "changed":
            return f"{self.name} was scored before {self.place} was changed. Renew it: {self.renewal}"
        what = "is no longer there" if self.state == "gone" else "cannot be read"
        return f"{self.name} was scored with {self.place}, which {what}: it is unknown whether it has changed."


def staleness(entry: ModelEntry, datasets: Sequence[ScoredDataset], results: Path) -> Stale | None:
    """Check a model that was scored: None if it is unchanged, or was never a local folder.

    entry: model.json. datasets: what it was scored or measured on.
    """
    if entry.found_at is None:
        return None
    place = Path(entry.found_at)
    shown = entry.path if Path(entry.path).expanduser().absolute() == place else str(place)

    def stale(state: Literal["changed", "gone", "unreadable"]) -> Stale:
        return Stale(entry.name, shown, state, _renewal(entry, shown, datasets, results))

    try:
        folder = model_folder(place)
        if folder is None:
            return stale("gone")
        return None if model_identity(folder) == entry.identity else stale("changed")
    except (RagcunError, OSError, ValueError):
        return stale("unreadable")


def stale_sentences(found: Iterable[Stale]) -> list[str]:
    """One sentence per changed model, and one for all the others, since results are often kept without their models."""
    every = list(found)
    sentences = [each.sentence for each in every if each.state == "changed"]
    lost = [each for each in every if each.state != "changed"]
    if len(lost) == 1:
        sentences.append(lost[0].sentence)
    elif lost:
        names = ", ".join(each.name for each in lost)
        sentences.append(
            f"{names} were scored with models that are no longer there, or cannot be read: it is unknown whether they "
            "have changed."
        )
    return sentences


def without_staleness(sentence: str) -> str:
    """Drop what stale models add to a sentence; empty if it is one of `stale_sentences`. A table or page that was made
    at another time is compared without it, since models come and go while figures stay.
    """
    return "" if ABOUT_STALENESS.search(sentence) else sentence.replace(MARK, "")


def _renewal(entry: ModelEntry, place: str, datasets: Sequence[ScoredDataset], results: Path) -> str:
    """The commands that score it again, one for each split, on one line."""
    by_split: dict[str, list[ScoredDataset]] = {}
    for dataset in datasets:
        known = known_dataset(dataset.name)
        by_default = dataset.split == ("test" if known is None else known.score_split)
        by_split.setdefault("" if by_default else dataset.split, []).append(dataset)
    return " && ".join(_command(entry, place, split, some, results) for split, some in by_split.items())


def _command(entry: ModelEntry, place: str, split: str, datasets: Sequence[ScoredDataset], results: Path) -> str:
    words = ["ragcun", "eval", "beir", "--model", place, "--datasets", ",".join(map(_named, datasets))]
    options = {
        "--split": split,
        "--name": entry.asked_name if entry.asked_name != default_name(place) else "",
        "--max-length": entry.asked_max_length or "",
        "--precision": entry.precision if entry.precision != "float32" else "",
        "--transform": entry.transform if entry.transform != "none" else "",
        "--fit-on": entry.fit_on if entry.fit_on not in (None, "corpus") else "",
        "--similarity": entry.similarity if entry.similarity != "euclidean" else "",
        "--results": results if results != Path("results") else "",
    }
    words += [str(word) for option, value in options.items() if value for word in (option, value)]
    return shlex.join([*words, "--overwrite"])


def _named(dataset: ScoredDataset) -> str:
    """The dataset's name if it is in data/ here, else its path."""
    if dataset.found_at is None or Path(dataset.found_at).parent == Path("data").absolute():
        return dataset.name
    return dataset.found_at
