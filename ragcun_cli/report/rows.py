"""Turn models into table rows: fold the seeds of an arm into one row, choose rows, and find the baseline."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.recipe.comparing import differing_keys
from ragcun_cli.recipe.problems import did_you_mean
from ragcun_cli.report.collect import ModelResults
from ragcun_cli.report.staleness import MARK, Stale

# Fields of a model's entry that may differ between rows; if they do, a note must say so.
DIFFERENCES = (
    ("output_dim", "Dimensions"),
    ("max_length", "Maximum tokens per text"),
    ("precision", "Precision of the encoder"),
)
NO_CONTRAST = frozenset({"name", "seed", "recipe", "recipe_but_terms", "values"})
SEED_IN_NAME = re.compile(r"-seed\d+(?=$|[-+])")  # as `ragcun train --seeds` names runs


@dataclass(frozen=True)
class Row:
    """One line of a table: a model, or the seeds of one arm. members: in order of seed."""

    name: str
    members: tuple[ModelResults, ...]

    @property
    def first(self) -> ModelResults:
        """The first member, for whatever all members share."""
        return self.members[0]

    @property
    def label(self) -> str:
        """The row's name as a table shows it."""
        label = f"{self.name} (untouched)" if self.first.untouched else self.name
        return f"{label}{MARK}" if self.is_stale else label

    @property
    def is_stale(self) -> bool:
        """Whether the model of one of its members has changed since it was scored."""
        return any(each.state == "changed" for each in self.stale)

    @property
    def stale(self) -> list[Stale]:
        """What is stale about its members, whose model has changed or is gone."""
        return [member.stale for member in self.members if member.stale is not None]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds it was trained with; empty for an encoder that ragcun did not train."""
        return tuple(member.seed for member in self.members if member.seed is not None)

    @property
    def trained(self) -> bool:
        """Whether ragcun trained it, even if the results do not say with which recipe and seed."""
        return self.first.entry.kind == "trained"

    def scores(self, dataset: str, metric: str) -> list[float]:
        """One score per seed; empty if any is missing, since a mean over fewer seeds would be read as one over all."""
        found = [member.datasets[dataset].metrics[metric] for member in self.members if dataset in member.datasets]
        return found if len(found) == len(self.members) else []

    def isoscores(self, dataset: str) -> list[float]:
        """The passages' IsoScores, one per seed; empty if any is missing."""
        found = [score for member in self.members if (score := member.isoscore(dataset)) is not None]
        return found if len(found) == len(self.members) else []


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation over seeds (n - 1); None for a single seed."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def fold(models: Sequence[ModelResults]) -> list[Row]:
    """Fold the seeds of each arm into one row, in the order of the models.

    Raises:
        DataError: if models that are named as seeds of one arm were not trained alike, or are one and the same.
    """
    groups: dict[str, list[ModelResults]] = {}
    for model in models:
        groups.setdefault(_name_without_seed(model), []).append(model)
    rows = []
    for name, members in groups.items():
        if len(members) > 1:
            _require_alike(name, members)
        rows.append(Row(name, tuple(sorted(members, key=lambda member: member.seed or 0))))
    return rows


def choose_rows(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The rows named, in that order; all if none is named.

    Raises:
        UsageError: if there is no such row.
    """
    known = {row.name: row for row in rows}
    for name in names:
        if name not in known:
            raise UsageError(f"--rows {name}: there is no such row; {did_you_mean(name, list(known))}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(rows)


def find_baseline(rows: Sequence[Row], name: str | None) -> Row | None:
    """The row named, or the only arm that trains the encoder without an isotropy term; None unless there is one.

    Raises:
        UsageError: if the row named is not among the rows.
    """
    if name is not None:
        for row in rows:
            if row.name == name:
                return row
        raise UsageError(f"--baseline {name}: there is no such row; {did_you_mean(name, [row.name for row in rows])}")
    plain = [row for row in rows if row.first.arm and _is_plain(row.first)]
    return plain[0] if len(plain) == 1 else None


def no_baseline(rows: Sequence[Row]) -> str:
    """Say why no row is the baseline by default."""
    possible = [row.name for row in rows if row.first.arm and _is_plain(row.first)]
    if len(possible) > 1:
        return f"{len(possible)} possible baselines ({', '.join(possible)}): choose with --baseline"
    return "no arm trains the encoder without an isotropy term: name the baseline with --baseline"


def _is_plain(model: ModelResults) -> bool:
    arm, entry = model.arm, model.entry
    without_term = arm["isotropy"] == "none" or not arm["lambda_isotropy"]
    return without_term and not arm["freeze_base"] and entry.is_plain


def _name_without_seed(model: ModelResults) -> str:
    return SEED_IN_NAME.sub("", model.name) if model.seed is not None else model.name


def _require_alike(name: str, members: Sequence[ModelResults]) -> None:
    one, *others = members
    remedy = "Remove one of them, or evaluate it again with another --name."
    for other in others:
        if "recipe" not in one.arm or "recipe" not in other.arm:
            raise DataError(
                f"{one.name} and {other.name} are named as seeds of {name}, but their results do not have the digest "
                "of a recipe",
                "An older ragcun wrote them: evaluate again.",
            )
        if one.arm["recipe"] != other.arm["recipe"]:
            keys = _differing_values(one.arm, other.arm)
            what = ", ".join(f"{key} {ours!r} there, {theirs!r} here" for key, (ours, theirs) in keys.items())
            raise DataError(
                f"{one.name} and {other.name} are named as seeds of {name}, but their recipes differ in more than "
                f"the seed: {what or 'an older ragcun did not record which keys'}",
                remedy,
            )
        differing = [key for key in one.entry.differing(other.entry) if key != "identity"]
        if differing:
            raise DataError(
                f"{one.name} and {other.name} are named as seeds of {name}, but were scored differently: "
                + ", ".join(f"{key} is {getattr(one.entry, key)} and {getattr(other.entry, key)}" for key in differing),
                remedy,
            )
    for key in ("seed", "identity"):
        first: dict[object, str] = {}
        for member in members:
            value = member.seed if key == "seed" else member.entry.identity
            if value in first:
                what = f"seed {value}" if key == "seed" else "the very same weights"
                raise DataError(
                    f"{first[value]} and {member.name} both have {what}: they would count as two trainings",
                    remedy,
                )
            first[value] = member.name


def _differing_values(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys in which two recipes differ, nested ones as `data.train`; empty if the results record no recipe."""
    if not ours.get("values") or not theirs.get("values"):
        return {}
    return differing_keys(ours["values"], theirs["values"])


def differing(rows: Sequence[Row], key: str, what: str) -> str:
    """A sentence on how this field of model.json differs between rows; empty if it does not."""
    values: dict[object, list[str]] = {}
    for row in rows:
        values.setdefault(getattr(row.first.entry, key), []).append(row.name)
    if len(values) == 1:
        return ""
    common = max(values, key=lambda value: len(values[value]))
    others = [f"{', '.join(names)} {value}" for value, names in values.items() if value != common]
    return f"{what}: {common}, but {'; '.join(others)}."


def contrast_with(row: Row, baseline: Row) -> str:
    """How recipe and scoring differ from the baseline, as far as results record it; empty for an encoder that ragcun
    did not train. A difference in scores comes from all of it together.
    """
    ours, theirs = row.first, baseline.first
    if not ours.arm or not theirs.arm:
        return ""
    keys = {key: (ours.arm[key], theirs.arm.get(key)) for key in ours.arm
            if key not in NO_CONTRAST and ours.arm[key] != theirs.arm.get(key)}  # fmt: skip
    keys |= _differing_values(ours.arm, theirs.arm)
    parts = [f"{key} ({here}, not {there})" for key, (here, there) in keys.items() if key != "name"]
    if not parts and ours.arm.get("recipe") != theirs.arm.get("recipe"):
        parts.append("recipe keys that the results do not record")
    parts += [
        f"{key} ({getattr(ours.entry, key)}, not {getattr(theirs.entry, key)})"
        for key in ("transform", "similarity")
        if getattr(ours.entry, key) != getattr(theirs.entry, key)
    ]
    return ", ".join(parts)
