"""What every command says of itself, and of what it was asked wrongly."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ragcun_cli.commands.help import parts_of
from ragcun_cli.main import app
from tests.conftest import REPOSITORY, RunCommand


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    command = command or get_command(app)
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, each in inner.items():
        yield from commands(each, (*path, name))


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_explained_and_every_help_ends_with_an_example(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert [each.name for each in command.params if not each.help and each.name != "help"] == []
    examples = command.epilog.split("\n\n")
    assert all(each.startswith(f"Example: ragcun {' '.join(path)}") for each in examples), examples
    flags = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
    used = {word.split("=")[0] for each in examples for word in each.split() if word.startswith("-")}
    assert used <= flags, f"an example has options that are not there: {used - flags}"


def test_paragraphs_flow_and_examples_come_last() -> None:
    body, examples = parts_of("First line\nand on.\n\nMore\nof it. Examples: ragcun a --b c  |\nragcun d\n")
    assert body == "First line and on.\n\nMore of it."
    assert examples == ["Example: ragcun a --b c", "Example: ragcun d"]


@pytest.mark.parametrize(("width", "longest"), [(40, 50), (60, 60), (80, 80), (200, 200)])  # shorter than 50 no line is
def test_help_fits_its_terminal(width: int, longest: int) -> None:
    for words in (("train",), ("aws", "launch"), ("eval", "beir")):
        said = output(*words, "--help", COLUMNS=str(width))
        assert longest - 15 <= max(map(len, said.splitlines())) <= longest
        assert "\x1b[" not in said
        flags = {flag for each in COMMANDS[words].params for flag in each.opts if flag.startswith("--")}
        assert flags <= set(said.replace(",", " ").split())


@pytest.mark.parametrize("path", [(), ("results",), ("results", "list"), ("train",)], ids=" ".join)
@pytest.mark.parametrize("width", [60, 80])
def test_a_flag_takes_no_type(
    path: tuple[str, ...], width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    app([*path, "--help"], standalone_mode=False)
    assert "<bool>" not in capsys.readouterr().out


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_option_is_cut_on_a_narrow_terminal(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    app([*path, "--help"], standalone_mode=False)
    said = capsys.readouterr().out
    explained = {word for each in COMMANDS[path].params if each.name != "help" for word in each.help.split()}
    assert explained <= set(said.split())
    words = said.replace(",", " ").split()
    flags = {flag for each in COMMANDS[path].params for flag in (*each.opts, *each.secondary_opts) if flag[0] == "-"}
    assert flags <= set(words)


@pytest.mark.parametrize(
    ("typed", "code", "expected"),
    [
        (["train", "--recpie", "x"], 2, "did you mean '--recipe'?"),
        (["trian"], 2, "did you mean 'train'?"),
        (["data", "donwload"], 2, "did you mean 'download'?"),
        (["train", "--recipe", "isotopy"], 3, "did you mean 'isotropy'?"),
        (["data", "download", "scifcat"], 2, "did you mean 'scifact'?"),
        (["eval", "beir", "--model", "x", "--datasets", "scifcat"], 2, "did you mean 'scifact'?"),
        (["aws", "plan", "--offline", "--instance", "p4d.24xlrage"], 2, "did you mean 'p4d.24xlarge'?"),
        (["aws", "plan", "--offline", "-i", "g5.xlarge", "-d", "scifcat"], 2, "did you mean 'scifact'?"),
        (["aws", "plan", "--offline", "-i", "g5.xlarge", "--region", "mars"], 2, "AWS has no such region"),
        (["train"], 2, "missing option '--recipe'"),
        (["train", "--recipe", "isotropy", "--processes", "0"], 2, "--processes: must be greater than or equal to 1"),
        (["train", "--recipe", "isotropy", "--seeds", "0,0"], 2, "For example: --seeds 0,1,2"),
        (
            ["encode", "nowhere.jsonl", "-m", "embedded:all-MiniLM-L6-v2", "-o", "x.npy"],
            2,
            "Give a .txt, .jsonl, .tsv, .csv or .parquet file.",
        ),
        (["eval", "beir", "-m", "pyproject.toml", "-d", "embedded:docstrings-quick"], 1, "Give the folder it is in."),
        (["report", "expectations", "--expected", "nowhere.yaml"], 2, "shows the form"),
    ],
)
def test_a_slip_of_the_finger_is_answered_with_the_word_that_was_meant(
    ragcun: RunCommand, typed: list[str], code: int, expected: str
) -> None:
    done = ragcun(*typed)
    assert done.exit_code == code
    assert expected in " ".join(done.stderr.replace("│", " ").split())
    assert done.stderr.count("╭") == 1
    as_json = ragcun(*typed, "--json")
    error = json.loads(as_json.stdout)
    assert (error["exit_code"], as_json.exit_code, as_json.stderr) == (code, code, "")
    assert expected in f"{error['error']} {error['hint']}"


def test_json_stands_after_the_command(ragcun: RunCommand) -> None:
    done = ragcun("--json", "recipe", "list")
    assert (done.exit_code, json.loads(done.stdout)["error"]) == (2, "--json goes after the command")


def test_a_group_without_a_command_is_its_help(ragcun: RunCommand) -> None:
    done = ragcun("data")
    assert done.exit_code == 2
    assert "download" in done.stdout + done.stderr


def test_quiet_leaves_results_and_errors_alone(ragcun: RunCommand, tmp_path: Path) -> None:
    loud = ragcun("recipe", "copy", "isotropy", tmp_path / "a.yaml")
    assert "written" in loud.stderr
    try:
        for place in (["--quiet", "recipe", "copy"], ["recipe", "copy", "-q"]):
            quiet = ragcun(*place, "isotropy", tmp_path / "a.yaml", "--overwrite")
            assert (quiet.exit_code, quiet.stderr, quiet.stdout) == (0, "", "")
        assert "did you mean" in ragcun("recipe", "show", "isotopy", "--quiet").stderr
        assert "lambda_isotropy" in ragcun("recipe", "show", "isotropy", "-q").stdout
    finally:
        os.environ.pop("RAGCUN_QUIET", None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ragcun tr", "train"),
        ("ragcun train --recipe iso", "isotropy"),
        ("ragcun data download scif", "scifact"),
        ("ragcun eval beir --datasets nq,scif", "nq,scifact"),
        ("ragcun aws plan --instance p4d", "p4d.24xlarge"),
    ],
)
def test_the_shell_completes(line: str, expected: str) -> None:
    asked = {"_RAGCUN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    assert expected in output(**asked).split()


def test_colours_are_for_terminals_that_want_them() -> None:
    """Rich colours what is forced; NO_COLOR is stronger."""
    coloured = output("recipe", "list", FORCE_COLOR="1")
    assert "\x1b[" in coloured
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", output("recipe", "list", FORCE_COLOR="1", NO_COLOR="1"))
    assert "\x1b[" not in output("recipe", "list")


def output(*words: str, **environment: str) -> str:
    command = [sys.executable, "-m", "ragcun_cli", *words]
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "NO_COLOR")}
    return subprocess.run(
        command, env={**kept, "PYTHONPATH": str(REPOSITORY), **environment}, capture_output=True, text=True
    ).stdout
