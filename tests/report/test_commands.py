"""The commands as they are typed: what they print, what they refuse, and that none of them loads torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RunCommand

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
sys.argv = ["ragcun", *sys.argv[1:]]
from ragcun_cli.main import main
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["table"], ["table", "--preset", "geometry", "-f", "html"], ["claims"], ["expectations"],
        ["verify", "--data-dir", "data"], ["figures", "--out", "OUT", "--formats", "svg"],
        ["page", "--data-dir", "data", "--out", "OUT/page.html"],
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_reports_do_without_torch(scored: Path, tmp_path: Path, arguments: list[str]) -> None:
    placed = [each.replace("OUT", str(tmp_path)) for each in arguments]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "report", *placed], cwd=scored, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_table_on_a_terminal(ragcun: RunCommand, scored: Path) -> None:
    done = ragcun(
        "report", "table", "--results", scored / "results", "-d", " two , one ", "--rows", "isotropy,baseline"
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("│", "┃"))]
    heads = [each.strip() for each in lines[0].strip("┃").split("┃")]
    assert heads == ["model", "two", "one", "Avg. of 2 named", "IsoScore, 2 sets"]
    assert [line.split()[1] for line in lines[1:]] == ["isotropy", "baseline"]
    assert "† better, ‡ worse than baseline" in done.stdout


def test_claims_are_printed_and_given_to_programs(ragcun: RunCommand, scored: Path) -> None:
    results = scored / "results"
    text = ragcun("report", "claims", "--results", results).stdout
    assert "isotropy against baseline on one (test" not in text  # a sentence for each comparison is a detail
    shown = [line.split("│")[1:] for line in text.splitlines() if line.startswith("│ isotropy ")]
    assert [line[1].strip() for line in shown] == ["one (test, 40 queries)", "two (test, 40 queries)"]
    detailed = ragcun("report", "claims", "--results", results, "--details").stdout
    assert "isotropy against baseline on one (test, 40 queries), nDCG@10 x 100: 94.62" in detailed
    assert text.startswith(
        "isotropy against baseline. isotropy: no difference shown. nDCG@10 on 2 datasets: better on each."
    )
    assert "corrected by Holm over all rows and datasets of the results" in text
    content = json.loads(ragcun("report", "claims", "--results", results, "--json").stdout)
    assert {each["verdict"] for each in content["comparisons"]} == {"better", "worse", "no difference shown"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["table", "--format", "latx"], 2, "did you mean 'latex'?"),
        (["table", "--rows", "isotropie"], 2, "did you mean 'isotropy'?"),
        (["table", "--metric", "ndcg@7"], 2, "--metric ndcg@7"),
        (["claims", "--baseline", "base"], 2, "--baseline base: there is no such row"),
        (["claims", "--correction", "bonferroni"], 2, "--correction bonferroni"),
        (["figures", "--correction", "bonferroni"], 2, "--correction bonferroni"),
        (["page", "--expected", "mine.yaml"], 2, "--expected mine.yaml: there is no such file"),
        (["verify", "table.csv"], 2, "not a file that records its origin"),
    ],
)
def test_what_is_refused(ragcun: RunCommand, scored: Path, arguments: list[str], code: int, message: str) -> None:
    done = ragcun("report", *arguments, "--results", scored / "results")
    assert done.exit_code == code
    assert message in " ".join(done.stderr.replace("│", "").split())


def test_a_page_cannot_replace_a_folder(ragcun: RunCommand, scored: Path, tmp_path: Path) -> None:
    done = ragcun("report", "page", "--results", scored / "results", "--out", tmp_path)
    assert done.exit_code == 2
    assert "is a folder" in done.stderr
    assert list(tmp_path.iterdir()) == []
