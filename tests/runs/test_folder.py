"""The readers of a run folder's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cli.runs.folder import read_resolved_recipe


@pytest.mark.parametrize("content", ["[1]", "a: [", "text", ""])
def test_a_recipe_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"not a mapping|while parsing"):
        read_resolved_recipe(tmp_path / "recipe.yaml")


def test_a_recipe_is_read_as_it_was_resolved(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: a\ndata:\n  train: b\n")
    assert read_resolved_recipe(tmp_path / "recipe.yaml") == {"name": "a", "data": {"train": "b"}}
