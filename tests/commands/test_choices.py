"""What the parser takes for an option is what the part behind it knows."""

from __future__ import annotations

from typing import get_args

import pytest

from ragcun_cli.commands import choices
from ragcun_cli.evaluate import mining
from ragcun_cli.report.formats import FORMATS
from ragcun_cli.report.statistics.corrections import CORRECTIONS
from ragcun_cli.report.tables import PRESETS
from tests.conftest import RunCommand


def test_the_parsers_values_are_those_that_there_are() -> None:
    assert set(get_args(choices.Preset)) == set(PRESETS)
    assert set(get_args(choices.TableFormat)) == {"text", *FORMATS}
    assert set(get_args(choices.Correction)) == set(CORRECTIONS)
    assert get_args(choices.Pick) == get_args(mining.Pick)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["report", "table", "-f", "latx"], "--format latx: unknown; did you mean 'latex'?"),
        (["report", "claims", "--correction", "hol"], "--correction hol: unknown; did you mean 'holm'?"),
        (["recipe", "schema", "--format", "yaml"], "--format yaml: unknown; known: json, markdown"),
        (["encode", "x", "-m", "y", "-o", "z.npy", "--precision", "8"], "--precision 8: unknown; known: bf16, float32"),
    ],
)
def test_any_other_value_is_refused_with_those_that_there_are(
    ragcun: RunCommand, command: list[str], said: str
) -> None:
    done = ragcun(*command)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", "").split())


def test_help_names_the_values_and_keeps_its_columns(ragcun: RunCommand) -> None:
    shown = " ".join(ragcun("report", "table", "--help").stdout.split())
    assert "--format -f NAME text, latex, markdown, html, csv or json." in shown
