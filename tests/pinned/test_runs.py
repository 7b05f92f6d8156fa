"""The folder of a run: which files, and what each says."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import RunCommand
from tests.pinned.masked import assert_pinned, shape_of

LISTS = ("metrics.jsonl", "speed.jsonl")
OBJECTS = ("status.json", "environment.json", "best_model/config.json", "checkpoints/step-00000012/manifest.json")


def test_the_files_of_a_run(ragcun: RunCommand, small_recipe: Path, tmp_path: Path) -> None:
    assert ragcun("train", "-r", small_recipe).exit_code == 0
    run = tmp_path / "run"
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    assert_pinned("run/files.txt", "\n".join(names) + "\n", tmp_path)
    shapes = {name: shape_of(json.loads((run / name).read_text())) for name in OBJECTS}
    for name in LISTS:
        lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
        shapes[name] = [shape_of(line) for line in (lines[0], lines[4], lines[-1])]
    assert_pinned("run/contents.json", json.dumps(shapes, indent=1) + "\n", tmp_path)
