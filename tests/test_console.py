"""What is printed where there is a terminal, and where there is none."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from ragcun_cli import console
from ragcun_cli.console import StepProgress
from ragcun_cli.errors import UsageError

FIGURES = {"loss": "1.605", "triples/s": "9.9", "contrastive": "0.457", "isotropy": "1.148", "variance": "0.001"}


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with StepProgress("arm", total=24, unit="step", line_every=10) as progress:
        for _ in range(24):
            progress.advance(figures=FIGURES)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["arm: step 10/24", "arm: step 20/24", "arm: step 24/24"]
    assert lines[0].endswith("variance 0.001  0:00:00 left")
    assert "left" not in lines[2]


def test_a_quick_encoding_says_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with StepProgress("encoding", total=100, unit="texts") as progress:
        for _ in range(10):
            progress.advance(10)
    assert capsys.readouterr().err == "encoding: texts 100/100\n"


@pytest.mark.parametrize(("width", "last"), [(80, "triples/s 9.9"), (110, "isotropy 1.148"), (130, "variance 0.001")])
def test_the_bar_shows_the_figures_that_fit_and_never_cuts_a_name(
    width: int, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(console, "message_console", lambda: terminal)
    with StepProgress("demo-isotropy", total=3, unit="step") as progress:
        for _ in range(3):
            progress.advance(figures=FIGURES)
    bar = next(line for line in reversed(stream.getvalue().splitlines()) if "demo-isotropy" in line)
    assert "…" not in bar
    assert "3/3 step" in bar
    assert bar.rstrip().endswith(last)


def test_a_table_is_never_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    columns = [console.Column("model"), *(console.Column(f"dataset-{n}", numeric=True) for n in range(9))]
    console.print_table(columns, [["a-model-with-a-long-name", *["73.88"] * 9]], caption="what it is " * 9)
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if "a-model-with-a-long-name" in line)
    assert row.count("73.88") == 9
    assert all(f"dataset-{n}" in lines[1] for n in range(9))


def test_an_error_is_a_panel_on_stderr_with_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_error(UsageError("a [bold] path: C:\\x", "do this"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a [bold] path: C:\\x" in captured.err  # a user's text is never markup
    assert "do this" in captured.err


def test_sizes_as_people_type_and_read_them() -> None:
    from ragcun_cli.errors import UsageError
    from ragcun_cli.quantities import parse_bytes, shown_bytes

    assert [parse_bytes(text, "--memory") for text in ("2GiB", "500M", "1.5k", "77", "1 TB")] == [
        2 << 30, 500 << 20, 1536, 77, 1 << 40,
    ]  # fmt: skip
    for wrong in ("", "lots", "0", "-1G", "1XB", "9" * 400):
        with pytest.raises(UsageError, match=r"--memory [^:]*: not a size"):
            parse_bytes(wrong, "--memory")
    assert [shown_bytes(count) for count in (12, 1234, 5.6e6, 11.17e9)] == [
        "12 bytes",
        "1.21 KiB",
        "5.34 MiB",
        "10.4 GiB",
    ]


def test_entries_go_on_below_what_stands_beside_the_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["makes        role ragcun-one and instance profile ragcun-one", "", "  basis      assumed"]
    console.print_entries(lines, 13)
    assert capsys.readouterr().out.splitlines() == lines
    monkeypatch.setattr(console, "result_console", lambda: Console(force_terminal=True, width=40))
    console.print_entries(lines, 13)
    assert capsys.readouterr().out.splitlines() == [
        "makes        role ragcun-one and",
        "             instance profile ragcun-one",
        *lines[1:],
    ]


def test_a_document_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace"))
    console.print_document("caf\u00e9")
    console.print_text("caf\u00e9")
    sys.stdout.flush()
    assert raw.getvalue() == "caf\u00e9\n".encode() + b"caf\\xe9\n"
