"""Single checks: what each sees, and what it says of what is wrong."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.preflight import base_models, machine
from ragcun_cli.preflight.answering import Answerer, OutOfTime, ask
from ragcun_cli.preflight.base_models import check_base_models
from ragcun_cli.preflight.checks import FAILED, OK, REMARK
from ragcun_cli.preflight.collective import check_collective
from ragcun_cli.preflight.devices import Devices, check_gpus
from ragcun_cli.preflight.inputs import check_data, check_surroundings, read_recipes
from ragcun_cli.preflight.machine import Disk, check_disk, measure_disks
from ragcun_cli.preflight.packages import check_packages, check_python
from tests.conftest import REPOSITORY, RunCommand
from tests.faulty_server import serving

GPU = {"name": "Tesla T4", "memory": 16 << 30, "capability": "7.5"}


def test_the_tested_set_is_known_by_its_list() -> None:
    assert check_python().status == OK
    found = check_packages(REPOSITORY / "constraints.txt")
    assert found.status == OK
    assert found.seen.startswith("the tested versions: torch ")


def test_other_versions_than_the_tested_are_a_remark(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("torch==1.0.0\nnumpy==1.0.0; python_version < '3.0'  # older\n")
    found = check_packages(constraints)
    assert found.status == REMARK
    assert "(tested: 1.0.0)" in found.seen
    assert "numpy" not in found.seen


def test_gpus() -> None:
    none, two = Devices([], "", None, {}), Devices([GPU, GPU], "", "12.8", {})
    assert (check_gpus(none, 0).status, check_gpus(none, 1).status) == (OK, FAILED)
    assert check_gpus(two, 2).seen.startswith("2 x Tesla T4 16 GiB, capability 7.5")
    assert check_gpus(two, 4).seen == "2 of 4 found"
    broken = check_gpus(Devices([GPU], "GPU 0: an illegal memory access", "12.8", {}), 0)
    assert (broken.status, broken.seen) == (FAILED, "GPU 0: an illegal memory access")
    assert check_gpus(EnvironmentUnfit("torch cannot be loaded"), 0).status == FAILED


def test_disks_are_measured_once_each_and_leave_nothing(tmp_path: Path) -> None:
    disks = measure_disks([("checkpoints", tmp_path / "not" / "yet"), ("data", tmp_path)])
    assert [disk.uses for disk in disks] == ["checkpoints, data"]
    assert disks[0].writes > 0
    assert disks[0].free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
    assert list(tmp_path.iterdir()) == []


def test_a_small_and_a_slow_disk() -> None:
    assert check_disk(Disk("data", Path("/d"), 500e6, 500e6, 1 << 30)).status == FAILED
    slow = check_disk(Disk("data", Path("/d"), 5e6, 500e6, 1 << 40))
    assert (slow.status, "faster disk" in slow.cure) == (REMARK, True)


def test_memory_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.check_cores_and_memory(1).status == OK
    assert machine.check_cores_and_memory(1000).status == REMARK
    monkeypatch.setattr(machine, "LEAST_MEMORY", 1 << 60)
    assert machine.check_cores_and_memory(1).status == FAILED
    monkeypatch.setattr(machine, "LEAST_OPEN_FILES", 1 << 40)
    few = next(check for check in machine.check_limits(1) if check.name == "open files")
    assert (few.status, few.cure.startswith("ulimit -n")) == (REMARK, True)


def test_servers_that_answer_and_that_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(machine, "SERVER", "http://127.0.0.1:9")
        hub, beir = machine.check_network()
    assert (hub.status, "(HF_ENDPOINT) answers" in hub.seen) == (OK, True)
    assert (beir.status, "--mirror" in beir.cure) == (REMARK, True)


def test_data_that_are_missing_stop_a_training_and_not_a_download() -> None:
    recipes, checks = read_recipes(["isotropy"], ["data.folder=nowhere"])
    assert [check.status for check in checks] == [OK]
    needed = {check.name: check for check in check_data(recipes, needed=True)}
    assert needed["training data msmarco"].status == needed["dev set msmarco"].status == FAILED
    assert "ragcun data download msmarco" in needed["training data msmarco"].cure
    assert {check.status for check in check_data(recipes, needed=False)} == {REMARK}


def test_a_base_model_is_loaded_or_the_reason_said(tmp_path: Path, tiny_bert: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bert, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    recipes = [read_recipes(["isotropy"], [f"base_model={each}"])[0][0] for each in (tiny_bert, broken, tiny_bert)]
    here, not_loaded = check_base_models(recipes, tmp_path, time.monotonic() + 120)
    assert (here.status, re.match(r"bert with \S+M parameters loads, weights sha256:", here.seen) is None) == (
        OK,
        False,
    )
    assert (not_loaded.status, "transformers cannot load this model" in not_loaded.seen) == (FAILED, True)


def test_a_base_model_that_does_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_models, "SECONDS_TO_COME", 0.2)
    recipes, _ = read_recipes(["isotropy"], [])
    (late,) = check_base_models(recipes, tmp_path, time.monotonic() + 120)
    assert (late.status, late.cure) == (
        FAILED,
        "What was fetched is kept. If the model is on the hub, fetch the rest first: "
        "hf download sentence-transformers/all-mpnet-base-v2",
    )


def test_trackers_and_backups_that_cannot_be_had() -> None:
    recipes, _ = read_recipes(["isotropy"], ["backup=gs://elsewhere/x"])
    (found,) = check_surroundings(recipes)
    assert found.status == FAILED
    recipes, _ = read_recipes(["isotropy"], ["trackers=[tensorboard]"])
    assert [check.status for check in check_surroundings(recipes)] == [OK]
    assert check_surroundings(read_recipes(["isotropy"], [])[0]) == []


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    soon = time.monotonic() + 60
    with pytest.raises(EnvironmentUnfit, match="exit code 3: what happened"):
        run(tmp_path, "import sys; print('what happened', file=sys.stderr); sys.exit(3)", soon)
    with pytest.raises(EnvironmentUnfit, match="killed by signal 9") as killed:
        run(tmp_path, "import os; os.kill(os.getpid(), 9)", soon)
    assert killed.value.hint == "Memory may have run out."
    said = {"error": "no such model", "hint": "another one", "kind": "model", "exit_code": 1}
    with pytest.raises(EnvironmentUnfit, match="no such model") as ours:
        run(tmp_path, f"import sys; print('for people'); print('''{json.dumps(said, indent=2)}'''); sys.exit(1)", soon)
    assert ours.value.hint == "another one"


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    child = Answerer(["-c", "import time; time.sleep(600)"], tmp_path / "log", time.monotonic() + 0.3)
    with pytest.raises(OutOfTime), child:
        child.result()
    assert child.failed()


def test_two_processes_add_up_a_tensor(tmp_path: Path) -> None:
    found = check_collective(2, tmp_path, time.monotonic() + 120)
    assert found.status == OK, found
    assert found.seen.startswith("2 processes, gloo: 128 MiB summed at ")


def test_processes_that_do_not_meet(tmp_path: Path) -> None:
    found = check_collective(2, tmp_path, time.monotonic() + 0.2)
    assert (found.status, found.seen) == (FAILED, "2 processes did not find each other")


def test_without_a_training_it_takes_seconds(ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    done = ragcun("preflight", "--no-training", "--recipe", "demo-isotropy", "--recipe", "demo-frozen", "--json")
    assert done.exit_code == 0, done.stdout
    report = json.loads(done.stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert "53aa5117" in checks["base model embedded:all-MiniLM-L6-v2"]["seen"]
    assert checks["precision of demo-frozen"]["seen"].startswith("float32 on CPU")
    assert report["estimates"]["demo-isotropy"]["here"] is None
    assert set(report["estimates"]["demo-isotropy"]["calculated"]) >= {"g4dn.xlarge", "p4d.24xlarge"}


def test_everything_that_would_stop_it_is_named_at_once(ragcun: RunCommand, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: nowhere.yaml\n")
    done = ragcun("preflight", "--recipe", recipe, "--recipe", "isotopy", "--gpus", "2")
    assert done.exit_code == 4
    said = " ".join(done.stderr.replace("│", " ").split())
    for expected in ("GPUs: 0 of 2", "no such file", "did you mean 'isotropy'?", "nvidia-smi"):
        assert expected in said
    assert "failed" in done.stdout


def run(folder: Path, program: str, deadline: float) -> object:
    with Answerer(["-c", program], folder / "log", deadline) as child:
        return child.result()


def test_what_a_module_prints_is_read_as_json(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfit, match="No module named"):
        ask("ragcun_cli.no_such_module", [], tmp_path / "log", time.monotonic() + 60)
