"""What people expect, and that it stays out of the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cli.data.registry import PUBLIC
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.report.expectations import SHIPPED, compare_expectations, read_expectations
from ragcun_cli.report.formats import FORMATS
from ragcun_cli.report.tables import TableOptions, build_table
from tests.conftest import RunCommand
from tests.report.test_table import row

COMPLETE = {name.replace("-", "_"): 0.492 for name in PUBLIC}


def test_the_shipped_file_is_the_guides_and_says_that_nobody_checked() -> None:
    file = read_expectations()
    assert not file.verified
    assert "TRAINING_GUIDE.md" in file.source
    found = {(each.row, each.figure): each.expected for each in file.expectations}
    names = ("all-mpnet-base-v2", "baseline", "isotropy", "frozen")
    assert [found[name, "ndcg@10"] for name in names] == [43.4, 47.5, 49.2, 46.8]
    assert [found[name, "isotropy"] for name in names] == [0.87, 0.89, 0.95, 0.92]


def test_met_not_met_and_not_measured() -> None:
    rows = [row("isotropy", **COMPLETE), row("baseline", **COMPLETE), row("frozen", scifact=0.5)]
    compared = compare_expectations(read_expectations(), rows)
    outcomes = {(each.expectation.row, each.expectation.figure): each for each in compared}
    assert outcomes["isotropy", "ndcg@10"].verdict == "met"
    assert outcomes["isotropy", "ndcg@10"].over == "BEIR, 14 public sets"
    assert outcomes["baseline", "ndcg@10"].verdict == "not met"
    assert outcomes["isotropy", "isotropy"].verdict == "not met"  # 0.5 was measured
    assert outcomes["frozen", "ndcg@10"].verdict == "not measured"
    assert outcomes["frozen", "ndcg@10"].why == "frozen is scored on 1 of BEIR's 18 sets"
    assert outcomes["all-mpnet-base-v2", "ndcg@10"].why == "there is no row all-mpnet-base-v2"


def test_expected_figures_stand_in_no_results_table(scored: Path) -> None:
    for form in FORMATS.values():
        assert "49.2" not in form(build_table(scored / "results", TableOptions()))


def test_the_command(ragcun: RunCommand, scored: Path, tmp_path: Path) -> None:
    done = ragcun("report", "expectations", "--results", scored / "results")
    assert done.exit_code == 0
    assert "Expectations were never verified." in done.stdout
    assert done.stdout.count("not measured") == 8
    assert ragcun("report", "expectations", "--results", tmp_path / "none").stdout.count("not measured") == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not valid YAML"),
        ("source: me\nverified: false\n", "expectations: Field required"),
        (SHIPPED.read_text().replace("within: 0.5", "within: -1"), r"expectations\.0\.within"),
        (SHIPPED.read_text().replace("ndcg@10", "recall"), r"expectations\.0\.figure"),
        ("- 1", "the file"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as raised:
        read_expectations(path)
    assert str(path) in raised.value.message


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_expectations(tmp_path / "mine.yaml")
