"""Every figure that no longer follows from its files is named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.report.verify_results import verify_results
from ragcun_cli.report.verify_table import verify_table
from tests.conftest import RunCommand
from tests.report.test_collect import change

FORMS = {"json": "json", "latex": "tex", "markdown": "md", "html": "html"}


def problems(root: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    checks = verify_results(root / "results", root / "data")
    return {(each.model, each.dataset): each.problems for each in checks if each.problems}


def rescore(path: Path, edit: Callable[[dict[str, list[float]]], None]) -> None:
    content = parquet.read_table(path).to_pydict()
    edit(content)
    parquet.write_table(arrow.table(content), path)


def test_untouched_results_hold(scored: Path) -> None:
    checks = verify_results(scored / "results", scored / "data")
    assert len(checks) == 20
    assert not any(each.problems or each.unchecked for each in checks)


def test_a_metric_that_was_changed(copied: Path) -> None:
    change(copied / "results/encoder/one.json", lambda content: content["metrics"].update({"ndcg@10": 0.99}))
    (found,) = problems(copied)["encoder", "one"]
    assert found.startswith("ndcg@10: the result states 0.990000, but the per-query scores give 0.6")


def test_a_per_query_score_that_was_changed(copied: Path) -> None:
    def polish(content: dict[str, list[float]]) -> None:
        content["mrr"][5] += 0.25

    rescore(copied / "results/encoder/one.queries.parquet", polish)
    mean, run = problems(copied)["encoder", "one"]
    assert mean.startswith("mrr: ")
    assert "1 of 40 queries score differently now, first 'q5'" in run


def test_a_run_that_was_changed(copied: Path) -> None:
    path = copied / "results/encoder/one.run.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    first = [line for line in lines if not line.startswith("q3 ")]
    path.write_bytes(gzip.compress("\n".join([*first, "q3 Q0 p3 1 60 encoder"]).encode()))
    found = problems(copied)["encoder", "one"]
    assert any("queries score differently now, first 'q3'" in each for each in found)


CUT_OFF = gzip.compress(b"q3 Q0 p3 1 60 encoder\n")[:-9]


@pytest.mark.parametrize("content", [b"nonsense", CUT_OFF], ids=["nonsense", "cut off"])
def test_a_run_that_cannot_be_read(copied: Path, content: bytes) -> None:
    (copied / "results/encoder/one.run.gz").write_bytes(content)
    assert any("cannot be read" in each for each in problems(copied)["encoder", "one"])


def test_a_run_with_flipped_bytes(copied: Path) -> None:
    path = copied / "results/encoder/one.run.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + b"\xff" * 20 + whole[220:])
    assert problems(copied)["encoder", "one"]


def test_a_missing_run(copied: Path) -> None:
    (copied / "results/encoder/one.run.gz").unlink()
    assert "one.run.gz cannot be read" in problems(copied)["encoder", "one"][0]


def test_a_query_that_the_dataset_lacks(copied: Path) -> None:
    (copied / "results/encoder/one.run.gz").write_bytes(gzip.compress(b"q999 Q0 p3 1 60 encoder\n"))
    assert "query 'q999' is not in the dataset" in problems(copied)["encoder", "one"][0]


def test_a_missing_spectrum(copied: Path) -> None:
    (copied / "results/encoder/one.spectrum.tsv").unlink()
    assert problems(copied)["encoder", "one"] == ("one.spectrum.tsv is missing",)


def test_a_model_entry_that_was_changed(copied: Path) -> None:
    change(copied / "results/encoder/model.json", lambda content: content.update(max_length=512))
    assert problems(copied)["encoder", "two"] == ("its fingerprint does not match model.json and this dataset",)


def test_isotropy_that_was_changed(copied: Path) -> None:
    change(copied / "results/encoder/isotropy.json", lambda content: content["one"].update(hubness=0.1))
    assert problems(copied)["encoder", "one"] == ("isotropy.json and the result differ in hubness",)


def test_a_spectrum_that_was_changed(copied: Path) -> None:
    path = copied / "results/encoder/one.spectrum.tsv"
    head, *lines = path.read_text().splitlines()
    cells = lines[0].split("\t")
    cells[1] = str(2 * float(cells[1]))
    path.write_text("\n".join([head, "\t".join(cells), *lines[1:]]) + "\n")
    assert "std of passages" in problems(copied)["encoder", "one"][0]


def test_a_dataset_that_is_gone_or_changed_is_said_to_be_unchecked(copied: Path, scored: Path, tmp_path: Path) -> None:
    # The results name where the dataset was: for this, both places must lack it.
    for path in (copied / "results").glob("*/*.json"):
        if path.name in ("one.json", "two.json"):
            change(path, lambda content: content["dataset"].update(path="nowhere"))
    (copied / "data/one/queries.jsonl").write_text('{"_id": "q0", "text": "60"}\n')
    checks = verify_results(copied / "results", copied / "data")
    assert {each.dataset for each in checks if each.unchecked} == {"one"}
    assert not any(each.problems for each in checks)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("preset", ["scores", "geometry", "robustness"])
def test_tables_hold_and_changed_cells_are_named(ragcun: RunCommand, copied: Path, form: str, preset: str) -> None:
    results = copied / "results"
    path = copied / f"table.{FORMS[form]}"
    path.write_text(ragcun("report", "table", "--preset", preset, "-f", form, "--results", results).stdout)
    held = verify_table(path, results)
    assert held.problems == ()
    assert held.cells > 10
    text = path.read_text()
    wanted = '"value": ' if form == "json" else "frozen"
    change_one = next(line for line in text.splitlines() if wanted in line and "report table" not in line)
    digits = [place for place, each in enumerate(change_one) if each.isdigit()]
    digit = digits[0] if form == "json" else digits[-1]
    other = str(9 - int(change_one[digit]))
    path.write_text(text.replace(change_one, change_one[:digit] + other + change_one[digit + 1 :], 1))
    assert len(verify_table(path, results).problems) == 1


@pytest.mark.parametrize("form", FORMS)
def test_results_that_changed_under_a_table(ragcun: RunCommand, copied: Path, form: str) -> None:
    results = copied / "results"
    path = copied / f"table.{FORMS[form]}"
    path.write_text(ragcun("report", "table", "-f", form, "--results", results).stdout)
    change(results / "encoder/one.json", lambda content: content.update(fingerprint="another"))
    found = verify_table(path, results).problems
    assert any("another" in each or "provenance" in each for each in found)


def test_files_that_are_no_tables(scored: Path, tmp_path: Path) -> None:
    for name, content, error, message in (
        ("table.csv", "a,b", UsageError, "not a file that records its origin"),
        ("table.json", "{}", DataError, "not a table by ragcun"),
        ("table.json", "[", DataError, "not a table by ragcun"),
        ("table.tex", "hello", DataError, "no line in it says how it was made"),
        (
            "table.md",
            'ragcun report table {"options": {"preset": 3, "colour": 1}}',
            DataError,
            "not the options of a table",
        ),
    ):
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(error, match=message):
            verify_table(path, scored / "results")
    with pytest.raises(UsageError, match="cannot be read"):
        verify_table(tmp_path / "none.tex", scored / "results")


def test_the_command(ragcun: RunCommand, copied: Path) -> None:
    results, data = copied / "results", copied / "data"
    done = ragcun("report", "verify", "--results", results, "--data-dir", data)
    assert (done.exit_code, done.stdout) == (
        0,
        "20 results: means and isotropy checked; runs of 20 rescored. No differences.\n",
    )
    change(results / "encoder/one.json", lambda content: content["metrics"].update({"ndcg@10": 0.99}))
    done = ragcun("report", "verify", "--results", results, "--data-dir", data)
    assert done.exit_code == 1
    assert "encoder on one: ndcg@10: the result states 0.990000" in done.stdout
    as_json = json.loads(ragcun("report", "verify", "--results", results, "--data-dir", data, "--json").stdout)
    assert [each["model"] for each in as_json["results"] if each["problems"]] == ["encoder"]


@pytest.mark.parametrize("form", ["latex", "markdown", "html"])
def test_forged_lines_are_found(ragcun: RunCommand, copied: Path, form: str) -> None:
    results, path = copied / "results", copied / f"table.{FORMS[form]}"
    text = ragcun("report", "table", "-f", form, "--results", results).stdout
    lines = text.splitlines()
    place = next(number for number, line in enumerate(lines) if "frozen" in line and "report table" not in line)
    better = lines[place].replace("frozen", "ours")
    for forged in (
        [*lines[:place], better, *lines[place:]],  # a row that never was
        [*lines[:place], *lines[place + 1 :]],  # one left out
        [line.replace("one", "TWO").replace("two", "one").replace("TWO", "two") if "report table" not in line else line
         for line in lines],  # heads swapped
    ):  # fmt: skip
        path.write_text("\n".join(forged) + "\n")
        assert verify_table(path, results).problems, form


def test_forged_json_is_found(ragcun: RunCommand, copied: Path) -> None:
    results, path = copied / "results", copied / "table.json"
    content = json.loads(ragcun("report", "table", "--json", "--results", results).stdout)
    for forge in (
        lambda table: table["rows"][0].update(one=99.9),
        lambda table: table["rows"].pop(),
        lambda table: table["cells"][3]["one"].update(against_baseline="better"),
        lambda table: table["notes"].pop(),
        lambda table: table.update(provenance="mine"),
    ):
        forged = json.loads(json.dumps(content))
        forge(forged)
        path.write_text(json.dumps(forged))
        assert verify_table(path, results).problems


def test_an_edited_caption_is_remarked_on(ragcun: RunCommand, copied: Path) -> None:
    results, path = copied / "results", copied / "table.tex"
    text = ragcun("report", "table", "-f", "latex", "--results", results).stdout
    path.write_text(text.replace("Holm correction over all", "Bonferroni correction over all"))
    found = verify_table(path, results)
    assert found.problems == ()
    assert "its caption or notes no longer say" in found.remarks[0]


def test_an_edited_claim_of_a_page_is_found(ragcun: RunCommand, copied: Path) -> None:
    results, path = copied / "results", copied / "report.html"
    assert ragcun("report", "page", "--results", results, "--out", path).exit_code == 0
    assert verify_table(path, results).problems == ()
    path.write_text(path.read_text().replace("no difference shown", "better", 1))
    assert any("claims: the results give this line" in each for each in verify_table(path, results).problems)
