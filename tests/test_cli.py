"""The command line as a user meets it: what it imports, its exit codes, and one clear panel for each mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Finished, RunCommand
from tests.tiny_models import write_collection

HEAVY = {"torch", "transformers", "boto3", "pydantic", "accelerate", "numpy", "yaml"}
BY_TYPER = {"pydantic"}  # Typer itself brings it along to read a command's options


@pytest.mark.parametrize(
    ("arguments", "allowed"), [(["--help"], set()), (["--version"], set()), (["train", "--help"], BY_TYPER)]
)
def test_help_loads_nothing_heavy(arguments: list[str], allowed: set[str]) -> None:
    program = (
        "import sys\n"
        f"sys.argv = ['ragcun', *{arguments!r}]\n"
        "from ragcun_cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print(' '.join(set({sorted(HEAVY)!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()[-1].split()) <= allowed


def panel(finished: Finished, code: int, *expected: str) -> None:
    """One panel on stderr, no traceback, nothing on stdout."""
    assert finished.exit_code == code, finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stderr.count("╭") == 1
    flowing = " ".join(finished.stderr.replace("│", " ").split())
    for text in expected:
        assert text in flowing
    assert finished.stdout == ""


def test_a_missing_recipe(ragcun: RunCommand) -> None:
    panel(ragcun("train", "--recipe", "recipes/isotopy.yaml"), 3, "did you mean 'recipes/isotropy.yaml'?")


def test_a_malformed_recipe(ragcun: RunCommand, tmp_path: Path) -> None:
    recipe = tmp_path / "arm.yaml"
    recipe.write_text("extends: nowhere.yaml\nlambda_isotropy: [1\n")
    panel(ragcun("train", "--recipe", recipe), 3, "arm.yaml:", "not valid YAML")


def test_data_that_is_not_there_or_broken(ragcun: RunCommand, small_recipe: Path, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    run = ["train", "--recipe", small_recipe, "--set", f"data.train={data}"]
    panel(ragcun(*run), 2, "no such file", "--set data.train=FILE")
    for line, complaint in (
        ('{"query": "q", "positive": "p"', "train.jsonl:2: not valid JSON"),
        ('{"query": "q"}', "train.jsonl:2: 'positive' is missing"),
        ('{"query": "q", "positive": ""}', "train.jsonl:2: 'positive' is empty"),
    ):
        data.write_text('{"query": "q", "positive": "p"}\n' + line + "\n")
        panel(ragcun(*run), 1, complaint)
    assert not (tmp_path / "run").exists()


def test_a_base_model_that_is_not_one(ragcun: RunCommand, small_recipe: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    run = ["train", "--recipe", small_recipe, "--set"]
    panel(ragcun(*run, f"base_model={empty}"), 1, "config.json is missing")
    panel(ragcun(*run, f"base_model={tmp_path}/nowhere"), 2, "there is no such model folder")
    assert not (tmp_path / "run").exists()


def test_a_path_that_leads_through_a_file(ragcun: RunCommand, small_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    panel(ragcun("train", "--recipe", small_recipe, "--set", f"output_dir={tmp_path}/file/run"), 2, "file")
    panel(ragcun("recipe", "copy", "isotropy", tmp_path / "file" / "arm.yaml"), 4, "file")
    panel(ragcun("train", "--recipe", small_recipe, "--set", f"data.train={tmp_path}"), 2, "corpus.jsonl is missing")


def test_demo_takes_no_folder_that_is_not_a_demos(ragcun: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    panel(ragcun("demo", "--quick", "--folder", tmp_path), 2, "was not made by an earlier demo")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_resume_and_overwrite(ragcun: RunCommand, small_recipe: Path) -> None:
    run = ["train", "--recipe", small_recipe, "--max-steps", "2"]
    assert "starting at the first step" in ragcun(*run, "--resume").stderr
    panel(ragcun(*run), 2, "holds a run of this recipe (finished)", "--overwrite deletes it and trains again")
    panel(ragcun(*run, "--set", "seed=3"), 2, "holds a run of another recipe", "seed is 0 there, 3 here")
    assert ragcun(*run, "--set", "seed=3", "--overwrite").exit_code == 0


def test_a_dry_run_prints_the_plan(ragcun: RunCommand, small_recipe: Path) -> None:
    done = ragcun("train", "--recipe", small_recipe, "--dry-run")
    assert done.exit_code == 0
    assert "lambda_isotropy: 1.0" in done.stdout
    assert "# negatives per query  15" in done.stdout
    assert "tiny-dev (dev, 20 queries), 20 passages" in done.stdout
    assert "best model is chosen" not in done.stderr
    tested = write_collection(small_recipe.parent / "tested", 5)
    done = ragcun("train", "--recipe", small_recipe, "--dry-run", "--set", f"data.dev={tested}")
    assert "tested (test, 5 queries), 5 passages" in done.stdout
    assert "the best model is chosen on its test split; do not report that score" in " ".join(done.stderr.split())
    as_json = json.loads(ragcun("train", "--recipe", small_recipe, "--dry-run", "--json").stdout)
    assert as_json["plan"]["total_steps"] == 15


def test_train_evaluate_report(ragcun: RunCommand, small_recipe: Path, tmp_path: Path, tiny_bert: Path) -> None:
    task = write_collection(tmp_path / "task", 12)
    results = tmp_path / "results"
    assert ragcun("train", "--recipe", small_recipe).exit_code == 0
    done = ragcun(
        "eval", "beir", "--model", tmp_path / "run", "-m", tiny_bert, "--datasets", task, "--results", results, "--json"
    )
    assert done.exit_code == 0, done.stderr
    written = json.loads(done.stdout)["results"]
    assert [each["model"]["kind"] for each in written] == ["trained", "untouched"]
    assert written[0]["model"]["arm"]["lambda_isotropy"] == 1
    assert written[0]["model"]["base_identity"] == written[1]["model"]["identity"]
    table = ragcun("report", "table", "--results", results)
    assert [line.split()[1] for line in table.stdout.splitlines() if line.startswith("│")] == ["tiny-bert", "run"]
    score = 100 * written[0]["metrics"]["ndcg@10"]
    for form in ("markdown", "latex", "csv", "json"):
        figure = str(score) if form in ("csv", "json") else f"{score:.2f}"
        assert figure in ragcun("report", "table", "--results", results, "--format", form).stdout


def test_a_name_with_brackets_is_no_markup(ragcun: RunCommand, tmp_path: Path, tiny_bert: Path) -> None:
    task, results = write_collection(tmp_path / "task", 3), tmp_path / "results"
    named = ragcun("eval", "beir", "-m", tiny_bert, "-d", task, "--results", results, "--name", "run[seed=1]")
    assert "run[seed=1]" in named.stdout
    assert "run[seed=1]" in ragcun("report", "table", "--results", results).stdout


def test_a_model_of_the_folder_one_stands_in_has_the_folders_name(
    ragcun: RunCommand, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = write_collection(tmp_path / "task", 3)
    monkeypatch.chdir(tiny_bert)
    for name in (".", f"{tiny_bert}/."):
        done = ragcun("eval", "beir", "-m", name, "-d", task, "--results", tmp_path / "results", "--overwrite")
        assert done.exit_code == 0, done.stderr
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["tiny-bert"]


def test_eval_options_that_make_no_sense(ragcun: RunCommand, tmp_path: Path, tiny_bert: Path) -> None:
    task = write_collection(tmp_path / "task", 3, seed=77)
    beir = ["eval", "beir", "-m", tiny_bert, "-d", task, "--results", tmp_path / "results"]
    for options, complaint in (
        (["--similarity", "cosin"], "--similarity cosin: unknown similarity; did you mean 'cosine'?"),
        (["--precision", "fp8"], "--precision fp8: unknown; known: bf16, float32, fp16"),
        (["--name", os.fsdecode(b"caf\xe9")], r"--name caf\udce9: not a valid name for a folder of results"),
        (["--transform", "whiten"], "--transform whiten: there is no such transform"),
        (["--memory", "lots"], "--memory lots: not a size"),
        (["--memory", "1MiB"], "--memory 1MiB: the search needs at least 64MiB"),
        (["--cache-limit", "0"], "--cache-limit 0: not a size"),
        (["--fit-on", tmp_path / "nowhere.jsonl"], "no such file"),
        (["--transform", "truncate:64"], "has only 32 dimensions"),
    ):
        panel(ragcun(*beir, *options), 2, complaint)
    panel(ragcun(*beir, "--precision", "fp16"), 4, "a CPU does not support it")
    panel(ragcun(*beir, "--cache-limit", "1KiB"), 4, "these texts alone take")
    assert not (tmp_path / "results" / "tiny-bert" / "task.json").exists()


def test_eval_of_a_single_query_and_broken_files(ragcun: RunCommand, tmp_path: Path, tiny_bert: Path) -> None:
    task = write_collection(tmp_path / "one", 1)
    beir = ["eval", "beir", "-m", tiny_bert, "--results", tmp_path / "results", "-d"]
    done = ragcun(*beir, task)
    assert done.exit_code == 0
    assert done.stdout.count("one (test, 1 query)") == 2  # scores, and those after int8 and the like
    assert json.loads((tmp_path / "results" / "tiny-bert" / "one.json").read_text())["metrics"]["ndcg@10"] == 1.0
    with (task / "corpus.jsonl").open("a") as stream:
        stream.write('{"_id": "d9", "text": \n')
    panel(ragcun(*beir, task), 1, "one/corpus.jsonl:2: not valid JSON")
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 cut")
    panel(ragcun(*beir, tmp_path / "cut.zip"), 1, "cut.zip: not a complete zip file")


def test_eval_lists_what_is_missing_and_averages_nothing(ragcun: RunCommand, tmp_path: Path, tiny_bert: Path) -> None:
    write_collection(tmp_path / "data" / "scifact", 3)
    beir = ["eval", "beir", "-m", tiny_bert, "--data-dir", tmp_path / "data", "--results", tmp_path / "results"]
    done = ragcun(*beir, "-d", "all")
    assert done.exit_code == 0
    assert "18 datasets are missing:" in done.stderr
    assert "signal1m: licensed: " in done.stderr
    assert "mean of" not in done.stdout
    as_json = json.loads(ragcun(*beir, "-d", "all", "--json").stdout)
    assert (len(as_json["results"]), len(as_json["missing"]), as_json["averages"]) == (1, 18, [])
    panel(
        ragcun(*beir, "-d", "nq,bioasq"), 2, "none of these is in", "nq: ragcun data download nq", "bioasq: licensed:"
    )


def test_eval_isotropy(ragcun: RunCommand, tmp_path: Path, tiny_bert: Path) -> None:
    task = write_collection(tmp_path / "task", 12)
    isotropy = ["eval", "isotropy", "-m", tiny_bert, "-d", task, "--results", tmp_path / "results"]
    done = ragcun(*isotropy, "--transform", "none", "--transform", "whiten:0.5")
    assert done.exit_code == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines() if line.startswith("│")]
    scored = "task (test, 12 queries)"
    assert [tuple(row[1:4]) for row in rows] == [
        ("tiny-bert", scored, "passages"), ("tiny-bert", scored, "queries"),
        ("tiny-bert+whiten-0.5", scored, "passages"), ("tiny-bert+whiten-0.5", scored, "queries"),
    ]  # fmt: skip
    (measured,) = json.loads(ragcun(*isotropy, "--json").stdout)["isotropy"]
    assert measured["isotropy"]["passages"]["texts"] == 12


def test_eval_selfcheck(ragcun: RunCommand, tmp_path: Path, tiny_bert: Path) -> None:
    write_collection(tmp_path / "data" / "scifact", 3)
    check = ["eval", "selfcheck", "--data-dir", tmp_path / "data"]
    panel(ragcun(*check, "-m", tiny_bert), 2, "it has no published scores")
    panel(ragcun(*check, "-d", write_collection(tmp_path / "mine", 3)), 2, "all-MiniLM-L6-v2 has no published score")
    impostor = tmp_path / "all-MiniLM-L6-v2"
    impostor.symlink_to(tiny_bert)
    done = ragcun(*check, "-m", impostor)  # other weights under a known name
    assert done.exit_code == 1
    assert "FAIL" in done.stdout
    assert "nfcorpus is missing: ragcun data download" in done.stderr
    checks = json.loads(ragcun(*check, "-m", impostor, "--json").stdout)
    assert [each["passed"] for each in checks if each["measured"] is not None] == [False]


def test_evaluating_what_is_not_there(ragcun: RunCommand, tmp_path: Path, tiny_bert: Path) -> None:
    write_collection(tmp_path / "data" / "scifact", 3)
    beir = ["eval", "beir", "--data-dir", tmp_path / "data", "--results", tmp_path / "results"]
    panel(ragcun(*beir, "-m", tiny_bert, "-d", "scifct"), 2, "no such dataset; did you mean 'scifact'?")
    panel(ragcun(*beir, "-m", tiny_bert, "-d", "scifact", "--split", "dev"), 2, "no split 'dev'")
    write_collection(tmp_path / "data" / "model", 3)
    panel(ragcun(*beir, "-m", tiny_bert, "-d", "model"), 2, "a dataset cannot be called 'model'")
    panel(ragcun(*beir, "-m", tiny_bert, "-d", " , "), 2, "no dataset given")
    panel(ragcun(*beir, "-m", tmp_path / "data", "-d", "scifact"), 1, "not a model folder")
    panel(ragcun(*beir, "-m", tmp_path / "no-model", "-d", "scifact"), 2, "there is no such model folder")
    panel(ragcun(*beir, "-m", tiny_bert, "-m", tiny_bert, "--name", "x", "-d", "scifact"), 2, "--name")
    panel(ragcun(*beir, "-m", tiny_bert, "--name", "../x", "-d", "scifact"), 2, "not a valid name for a folder")
    panel(ragcun(*beir, "-m", tiny_bert, "-m", tiny_bert, "-d", "scifact"), 2, "would both write to")
    write_collection(tmp_path / "other" / "scifact", 3)
    panel(
        ragcun(*beir, "-m", tiny_bert, "-d", f"scifact,{tmp_path / 'other/scifact'}"),
        2,
        "the second dataset called scifact",
    )
    # The wrong model comes second; the first must not be scored for nothing.
    panel(ragcun(*beir, "-m", tiny_bert, "-m", tmp_path / "no-model", "-d", "scifact"), 2, "no such model folder")
    panel(ragcun(*beir, "-m", tiny_bert, "--max-length", "999", "-d", "scifact"), 2, "has 128 positions for tokens")
    (tmp_path / "data" / "scifact" / "corpus.jsonl").write_text("{}\n")
    panel(ragcun(*beir, "-m", tiny_bert, "-d", "scifact"), 1, "corpus.jsonl:1: '_id' is missing")
    assert not (tmp_path / "results").exists()


def test_reporting_what_is_not_there(ragcun: RunCommand, tmp_path: Path) -> None:
    panel(ragcun("report", "table", "--results", tmp_path), 2, "there are no results here")
    panel(ragcun("report", "table", "--format", "latx", "--results", tmp_path), 2, "did you mean 'latex'?")


def test_an_error_is_json_where_json_was_asked_for(ragcun: RunCommand, tmp_path: Path) -> None:
    done = ragcun("report", "table", "--results", tmp_path, "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["exit_code"] == 2


def test_usage_errors_are_typers(ragcun: RunCommand) -> None:
    assert ragcun("trian").exit_code == 2
    assert ragcun("train", "--recip", "x").exit_code == 2


def test_recipe_list_show_check_copy_schema(
    ragcun: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("a model was fetched"))
    assert "demo-isotropy" in ragcun("recipe", "list").stdout
    assert {each["name"] for each in json.loads(ragcun("recipe", "list", "--json").stdout)} >= {"isotropy", "frozen"}
    assert "seed: 7" in ragcun("recipe", "show", "isotropy", "--set", "seed=7").stdout
    assert json.loads(ragcun("recipe", "show", "recipes/frozen.yaml", "--json").stdout)["freeze_base"] is True
    assert "additionalProperties" in json.loads(ragcun("recipe", "schema").stdout)
    copied = tmp_path / "my-arm.yaml"
    assert ragcun("recipe", "copy", "isotropy", copied).exit_code == 0
    panel(ragcun("recipe", "copy", "isotropy", copied), 2, "already exists")
    checked = ragcun("recipe", "check", copied, "baseline", "demo-isotropy").stdout.splitlines()
    missing = "valid. Missing: data.train: msmarco is not in data/. Get it with: ragcun data download msmarco"
    assert checked[0].startswith(f"{copied}: {missing}")
    assert checked[1].startswith(f"baseline: {missing}")
    assert checked[2] == "demo-isotropy: valid"  # its data are made, its model comes with a package
    here = ragcun("recipe", "check", "isotropy", "--set", "data.train=demo", "--set", f"data.train={copied}",
                  "--set", "data.dev=null")  # fmt: skip
    assert here.stdout.strip() == (  # told, and not fetched
        "isotropy: valid. Missing: base_model: sentence-transformers/all-mpnet-base-v2. `ragcun train` fetches it "
        "from the hub."
    )
    assert "name: my-arm" in ragcun("recipe", "show", copied).stdout
    panel(ragcun("recipe", "copy", "isotropy", tmp_path / "my arm.yaml"), 2, "'my arm' cannot be one")
    copied.write_text(copied.read_text().replace("seed: 0", "sed: 0"))
    checked = ragcun("recipe", "check", "baseline", copied, "nonsense")
    assert checked.exit_code == 3
    assert checked.stdout.startswith("baseline: valid. Missing")
    assert checked.stderr.count("╭") == 2
    assert "unknown key; did you mean 'seed'?" in checked.stderr
    as_json = json.loads(ragcun("recipe", "check", "baseline", copied, "--json").stdout)
    assert as_json[0]["problems"] is None
    assert "did you mean 'seed'?" in as_json[1]["problems"]
    assert (as_json[1]["kind"], as_json[1]["exit_code"]) == ("recipe", 3)
    missing = ragcun("recipe", "show", tmp_path / "my-amr.yaml")
    assert f"did you mean '{copied}'?" in " ".join(missing.stderr.replace("│", " ").split())
    another = json.loads(ragcun("recipe", "copy", "isotropy", tmp_path / "another.yaml", "--json").stdout)
    assert another["name"] == "another"
    assert Path(another["path"]).is_file()


def test_a_full_disk_is_said_with_its_exit_code(
    ragcun: RunCommand, small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    done = ragcun("train", "--recipe", small_recipe, "--max-steps", "2")
    assert done.exit_code == 4
    assert "the disk is full: model.safetensors" in done.stderr


@pytest.mark.parametrize("arm", ["baseline", "isotropy", "frozen"])
def test_the_publication_recipes_run_on_a_small_mpnet_changed_by_set_alone(
    arm: str, ragcun: RunCommand, tmp_path: Path, tiny_mpnet: Path, triples_file: Path, dev_folder: Path
) -> None:
    output = tmp_path / "run"
    changes = {
        "base_model": tiny_mpnet, "data.train": triples_file, "data.dev": dev_folder, "output_dir": output,
        "log_every": 1,
    }  # fmt: skip
    sets = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    done = ragcun("train", "--recipe", f"recipes/{arm}.yaml", *sets, "--max-steps", "10")
    assert done.exit_code == 0, done.stderr
    steps = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    losses = [line for line in steps if "loss" in line]
    assert len(losses) == 10
    assert (losses[0]["isotropy"] is None) == (arm == "baseline")
    assert ("learning_rate_base" in losses[0]) == (arm != "frozen")
    assert losses[0]["learning_rate_projection"] == pytest.approx(5e-4 / 10)  # warm-up shortened to the ten steps
    assert (output / "best_model" / "model.safetensors").is_file()
