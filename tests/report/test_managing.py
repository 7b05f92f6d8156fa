"""Results can be listed, taken out and renamed, and say when the model that they are of has been replaced."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from ragcun_cli import files
from ragcun_cli.report.collect import collect
from ragcun_cli.report.managing import TRASH
from ragcun_cli.report.verify_results import verify_results
from tests.conftest import RunCommand
from tests.tiny_models import build_tiny_bert, write_collection


def test_removal_is_dry_unless_told_and_names_the_trash(ragcun: RunCommand, copied: Path) -> None:
    results = copied / "results"
    before = sorted(path.relative_to(results) for path in results.rglob("*"))
    dry = ragcun("results", "remove", "isotropy-seed1", "encoder", "-d", "two", "--results", results)
    assert dry.exit_code == 0
    assert "2 results would be moved" in dry.stderr
    assert "Nothing was moved: add --yes" in dry.stderr
    assert sorted(path.relative_to(results) for path in results.rglob("*")) == before

    done = json.loads(ragcun("results", "remove", "encoder", "--results", results, "--yes", "--json").stdout)
    assert done["trash"].startswith(str(results / TRASH))
    assert (Path(done["trash"]) / "encoder" / "one.json").is_file()
    assert "encoder" not in [model.name for model in collect(results)]

    some = ragcun("results", "remove", "isotropy-seed1", "-d", "two", "--results", results, "--yes")
    assert "1 result moved to" in some.stderr
    (left,) = [model for model in collect(results) if model.name == "isotropy-seed1"]
    assert list(left.datasets) == ["one"]
    assert "two" not in left.geometry
    assert not any(check.problems for check in verify_results(results, copied / "data"))


def test_what_is_moved_back_is_as_it_was(ragcun: RunCommand, copied: Path) -> None:
    results = copied / "results"
    before = {path.name: path.read_bytes() for path in (results / "encoder").iterdir()}
    done = json.loads(ragcun("results", "remove", "encoder", "--results", results, "--yes", "--json").stdout)
    for move in done["moves"]:
        shutil.move(move["to"], move["from"])
    assert {path.name: path.read_bytes() for path in (results / "encoder").iterdir()} == before


def test_a_new_name_is_in_every_file(ragcun: RunCommand, copied: Path) -> None:
    results = copied / "results"
    assert ragcun("results", "rename", "encoder", "the old one", "--results", results).exit_code == 0
    assert not (results / "encoder").exists()
    (renamed,) = [model for model in collect(results) if model.name == "the old one"]
    assert set(renamed.datasets) == {"one", "two"}
    with gzip.open(results / "the old one" / "one.run.gz", "rt") as stream:
        assert {line.rsplit(" ", 1)[1] for line in stream} == {"the_old_one\n"}
    assert not any(check.problems for check in verify_results(results, copied / "data"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["remove", "encodr"], "did you mean 'encoder'?"),
        (["remove", "encoder", "-d", "three"], "encoder has no such result"),
        (["rename", "nothing", "x"], "there are no results with this name"),
        (["rename", "encoder", "isotropy-seed0"], "already exists"),
        (["rename", "encoder", "../x"], "not a valid name for a folder"),
        (["rename", "encoder", os.fsdecode(b"caf\xe9")], "not a valid name for a folder"),
        (["rename", "turned+cosine", "x"], "adds +cosine to the name of such results Call them x+cosine."),
    ],
)
def test_wrong_wishes_change_nothing(ragcun: RunCommand, copied: Path, arguments: list[str], complaint: str) -> None:
    results = copied / "results"
    model = json.loads((results / "encoder" / "model.json").read_text())
    shutil.copytree(results / "encoder", results / "turned+cosine")
    files.write_json(
        results / "turned+cosine" / "model.json", {**model, "name": "turned+cosine", "asked_name": "turned"}
    )
    before = sorted(results.rglob("*"))
    done = ragcun("results", *arguments, "--results", results)
    assert done.exit_code == 2
    assert complaint in " ".join(done.stderr.replace("│", "").split())
    assert sorted(results.rglob("*")) == before


def test_a_folder_without_results(ragcun: RunCommand, tmp_path: Path) -> None:
    assert ragcun("results", "list", "--results", tmp_path).exit_code == 2


@pytest.fixture
def trained(ragcun: RunCommand, tmp_path: Path, small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two arms, scored."""
    monkeypatch.chdir(tmp_path)
    write_collection(tmp_path / "data" / "tiny", 12)
    for name, weight in (("baseline", 0), ("isotropy", 1)):
        done = ragcun("train", "-r", small_recipe, "--set", f"name={name}", "--set", f"lambda_isotropy={weight}",
                      "--set", "max_steps=2", "--set", f"output_dir=checkpoints/{name}")  # fmt: skip
        assert done.exit_code == 0, done.stderr
        assert ragcun("eval", "beir", "-m", f"checkpoints/{name}", "-d", "tiny").exit_code == 0
    return tmp_path


def test_a_result_of_replaced_weights_is_marked_everywhere_with_what_renews_it(
    ragcun: RunCommand, trained: Path, small_recipe: Path
) -> None:
    listed = json.loads(ragcun("results", "list", "--json").stdout)
    assert {(each["model"], each["state"]) for each in listed} == {("baseline", "as scored"), ("isotropy", "as scored")}
    assert "stale" not in ragcun("report", "table").stdout
    written = [trained / name for name in ("table.json", "table.md", "table.tex", "then.html")]
    for path, form in zip(written, ("json", "markdown", "latex"), strict=False):
        path.write_text(ragcun("report", "table", "--format", form).stdout)
    assert ragcun("report", "page", "--out", written[3]).exit_code == 0
    done = ragcun("train", "-r", small_recipe, "--set", "name=isotropy", "--set", "lambda_isotropy=3",
                  "--set", "max_steps=2", "--set", "output_dir=checkpoints/isotropy", "--overwrite")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    renewal = (
        "isotropy was scored before checkpoints/isotropy was changed. Renew it: ragcun eval beir --model "
        "checkpoints/isotropy --datasets tiny --overwrite"
    )
    table = ragcun("report", "table", "--format", "json").stdout
    assert "isotropy (stale)" in table
    assert renewal in " ".join(table.split())
    assert renewal in " ".join(ragcun("report", "table", "--format", "csv").stderr.split())
    claims = ragcun("report", "claims").stdout
    assert renewal in claims
    assert claims.lstrip().startswith("isotropy (stale) against baseline.")
    assert ragcun("report", "page").exit_code == 0
    assert renewal in (trained / "report.html").read_text()
    exported = ragcun("export", "checkpoints/isotropy", "exported")
    assert renewal in " ".join(exported.stderr.split())
    assert "The card has no scores: results/ has no results for this model" in " ".join(exported.stderr.split())
    assert "No scores have been measured" in (trained / "exported" / "README.md").read_text()
    states = {each["model"]: each["state"] for each in json.loads(ragcun("results", "list", "--json").stdout)}
    assert states == {"baseline": "as scored", "isotropy": "changed"}
    # Tables and pages hold the figures of results, which are as they were: then and now.
    assert ragcun("report", "verify", *written[:3]).exit_code == 0
    of_page = json.loads(ragcun("report", "verify", written[3], "--json").stdout)
    assert all(each.startswith("cost: ") for table in of_page["tables"] for each in table["problems"])  # trained again
    now = trained / "now.md"
    now.write_text(ragcun("report", "table", "--format", "markdown").stdout)
    assert ragcun("report", "verify", now, "report.html").exit_code == 0

    command = renewal.split("Renew it: ragcun ")[1].split()
    assert ragcun(*command).exit_code == 0
    assert "stale" not in ragcun("report", "table").stdout
    for path, form in zip(written, ("json", "markdown", "latex"), strict=False):
        path.write_text(ragcun("report", "table", "--format", form).stdout)
    assert ragcun("report", "page", "--out", written[3]).exit_code == 0
    shutil.rmtree(trained / "checkpoints" / "isotropy")
    (trained / "checkpoints").rename(trained / "elsewhere")
    verified = ragcun("report", "verify", *written)
    assert verified.exit_code == 0, verified.stdout
    assert "cost: not checked: --runs checkpoints: has none of the models' run folders" in " ".join(
        verified.stderr.split()
    )
    (trained / "elsewhere").rename(trained / "checkpoints")
    states = {each["model"]: each["state"] for each in json.loads(ragcun("results", "list", "--json").stdout)}
    assert states == {"baseline": "as scored", "isotropy": "gone"}
    table = " ".join(ragcun("report", "table").stdout.split())
    assert "(stale)" not in table
    assert (
        "isotropy was scored with checkpoints/isotropy, which is no longer there: it is unknown whether it has" in table
    )


def test_any_file_that_decides_an_embedding_makes_a_result_stale(
    ragcun: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_collection(tmp_path / "data" / "tiny", 6)
    build_tiny_bert(tmp_path / "encoder")
    assert ragcun("eval", "beir", "-m", "./encoder", "-d", "tiny", "--no-robustness").exit_code == 0
    config = tmp_path / "encoder" / "config.json"
    config.write_text(config.read_text().replace('"gelu"', '"relu"'))
    assert "encoder was scored before ./encoder was changed" in " ".join(ragcun("report", "table").stdout.split())
    refused = ragcun("eval", "beir", "-m", "./encoder", "-d", "tiny", "--no-robustness")
    assert refused.exit_code == 2
    assert "holds results of another model of this name: identity" in " ".join(refused.stderr.split())


def test_seeds_that_do_not_fit_together_name_the_keys(
    ragcun: RunCommand, tmp_path: Path, small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_collection(tmp_path / "data" / "tiny", 6)
    for seed, temperature in ((0, 0.05), (1, 0.1)):
        done = ragcun("train", "-r", small_recipe, "--set", "name=arm", "--set", f"temperature={temperature}",
                      "--set", "max_steps=1", "--set", f"output_dir=checkpoints/arm-seed{seed}",
                      "--set", f"seed={seed}")  # fmt: skip
        assert done.exit_code == 0, done.stderr
        assert ragcun("eval", "beir", "-m", f"checkpoints/arm-seed{seed}", "-d", "tiny").exit_code == 0
    refused = ragcun("report", "table")
    assert refused.exit_code == 1
    said = " ".join(refused.stderr.replace("│", "").split())
    assert "their recipes differ in more than the seed: temperature 0.05 there, 0.1 here" in said


def test_what_renews_a_result_has_all_that_it_was_made_with(
    ragcun: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_collection(tmp_path / "elsewhere" / "own", 6, split="dev")
    build_tiny_bert(tmp_path / "encoder")
    scored = ("eval", "beir", "-m", "encoder", "-d", "elsewhere/own", "--split", "dev", "--max-length", "12")
    assert ragcun(*scored, "--name", "shown", "--no-robustness").exit_code == 0
    config = tmp_path / "encoder" / "config.json"
    config.write_text(config.read_text().replace('"gelu"', '"relu"'))
    said = " ".join(ragcun("report", "table", "--format", "json").stdout.split())
    command = said.split("Renew it: ragcun ")[1].split('"')[0]
    assert "--split dev --name shown --max-length 12" in command
    assert ragcun(*command.split()).exit_code == 0
    assert "stale" not in ragcun("report", "table").stdout
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["shown"]


def test_a_model_is_known_wherever_it_lies_and_wherever_the_report_is_made(
    ragcun: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_collection(tmp_path / "data" / "tiny", 6)
    build_tiny_bert(tmp_path / "a" / "encoder")
    evaluated = ("eval", "beir", "-d", "tiny", "--no-robustness", "--results", str(tmp_path / "results"))
    assert ragcun(*evaluated, "-m", "a/encoder").exit_code == 0
    other = build_tiny_bert(tmp_path / "other" / "a" / "encoder")
    (other / "config.json").write_text((other / "config.json").read_text().replace('"gelu"', '"relu"'))
    monkeypatch.chdir(tmp_path / "other")
    (listed,) = json.loads(ragcun("results", "list", "--json", "--results", "../results").stdout)
    assert listed["state"] == "as scored"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    again = ragcun(*evaluated, "-m", "b/encoder")
    assert "1 of 1 results are up to date" in " ".join(again.stderr.split())
    build_tiny_bert(tmp_path / "a" / "encoder")
    (tmp_path / "a" / "encoder" / "model.safetensors").unlink()
    (listed,) = json.loads(ragcun("results", "list", "--json").stdout)
    assert listed["state"] == "as scored"
    (tmp_path / "b" / "encoder" / "model.safetensors").unlink()
    (listed,) = json.loads(ragcun("results", "list", "--json").stdout)
    assert listed["state"] == "unreadable"


def test_what_is_removed_comes_back_whole(ragcun: RunCommand, copied: Path) -> None:
    results = copied / "results"
    before = {path: path.read_bytes() for path in sorted(results.rglob("*")) if path.is_file()}
    done = ragcun("results", "remove", "encoder", "-d", "one", "--yes", "--results", results, "--json")
    trash = json.loads(done.stdout)["trash"]
    assert "one" not in json.loads((results / "encoder" / "isotropy.json").read_text())
    assert ragcun("results", "restore", trash).exit_code == 0
    assert {path: path.read_bytes() for path in sorted(results.rglob("*")) if path.is_file()} == before
    refused = ragcun("results", "restore", trash)
    assert refused.exit_code == 2
    assert "this is not a folder of removed results" in " ".join(refused.stderr.replace("│", "").split())


def test_results_of_another_model_are_not_put_beside_new_ones(ragcun: RunCommand, copied: Path) -> None:
    results = copied / "results"
    done = ragcun("results", "remove", "encoder", "-d", "one", "--yes", "--results", results, "--json")
    trash = json.loads(done.stdout)["trash"]
    for name in ("model.json", "two.json"):
        path = results / "encoder" / name
        path.write_text(path.read_text().replace("sha256:encoder", "sha256:other"))
    before = sorted(results.rglob("*"))
    refused = ragcun("results", "restore", trash)
    assert refused.exit_code == 2
    assert "encoder: now holds results of another model" in " ".join(refused.stderr.replace("│", "").split())
    assert sorted(results.rglob("*")) == before


def test_what_is_only_measured_can_be_removed_too(
    ragcun: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        write_collection(tmp_path / "data" / name, 6)
    build_tiny_bert(tmp_path / "encoder")
    assert ragcun("eval", "isotropy", "-m", "encoder", "-d", "one,two").exit_code == 0
    assert ragcun("results", "remove", "encoder", "-d", "two", "--yes").exit_code == 0
    assert [each["dataset"] for each in json.loads(ragcun("results", "list", "--json").stdout)] == ["one"]
