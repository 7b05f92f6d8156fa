"""Estimates as tables."""

from __future__ import annotations

import pytest

from ragcun_cli.commands.estimates import print_estimates
from ragcun_cli.recipe.estimates import Estimate


def estimate(seconds: float | None) -> Estimate:
    return Estimate({"training": seconds}, memory=3 << 30, disk=2 << 30, tokens=2.5e9, basis=("measured",))


def rows(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_several_trainings_are_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    print_estimates({"baseline": estimate(7200), "isotropy": estimate(3600)}, dollars_per_hour=1.5)
    assert rows(capsys) == [
        ["baseline", "2:00:00", "3 GiB", "2 GiB", "2.5 G", "$3.00"],
        ["isotropy", "1:00:00", "3 GiB", "2 GiB", "2.5 G", "$1.50"],
        ["all of these, one after another", "3:00:00", "", "4 GiB", "5 G", "$4.50"],
    ]


def test_what_cannot_be_said_is_not_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    print_estimates({"baseline": estimate(7200), "isotropy": estimate(None)}, dollars_per_hour=1.5)
    assert [row[1] for row in rows(capsys)] == ["2:00:00", "?", "?"]
    assert rows(capsys) == []
    print_estimates({"baseline": estimate(7200)}, dollars_per_hour=None)
    assert rows(capsys) == [["baseline", "2:00:00", "3 GiB", "2 GiB", "2.5 G"]]
