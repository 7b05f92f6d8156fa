"""Reading results, and what is not put into one table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.report.collect import collect


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_the_untouched_encoder_comes_first_then_arms_by_what_they_add(scored: Path) -> None:
    names = [model.name for model in collect(scored / "results")]
    assert names[0] == "encoder"
    assert [name.split("-")[0] for name in names[1:]] == ["baseline"] * 3 + ["isotropy"] * 3 + ["frozen"] * 3


def test_what_is_read(scored: Path) -> None:
    model = next(model for model in collect(scored / "results") if model.name == "isotropy-seed1")
    result = model.datasets["one"]
    assert (model.seed, result.queries, result.split, result.dataset.path) == (
        1,
        40,
        "test",
        str(scored / "data" / "one"),
    )
    assert 0 < result.metrics["ndcg@10"] < 1
    assert result.per_query.is_file()
    assert result.run.is_file()
    assert model.isoscore("one") == pytest.approx(0.98, abs=0.05)


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no results here") as raised:
        collect(tmp_path / "nowhere")
    assert "ragcun eval beir" in raised.value.hint


def test_other_texts(copied: Path) -> None:
    change(copied / "results/encoder/one.json", lambda content: content["dataset"].update(sha256="f" * 64))
    with pytest.raises(DataError, match=r"one: .* and encoder .* were scored or measured on different texts"):
        collect(copied / "results")


def test_another_split(copied: Path) -> None:
    change(copied / "results/encoder/one.json", lambda content: content["dataset"].update(split="dev"))
    with pytest.raises(DataError, match=r"and encoder \(dev"):
        collect(copied / "results")


def test_other_rules(copied: Path) -> None:
    change(copied / "results/encoder/two.json", lambda content: content["rules"].update(ndcg_gain="exponential"))
    with pytest.raises(DataError, match="scored by different rules: ndcg_gain is 'linear' and 'exponential'"):
        collect(copied / "results")


def test_the_similarity_is_a_rows_own_rule(copied: Path) -> None:
    change(copied / "results/encoder/two.json", lambda content: content["rules"].update(similarity="cosine"))
    assert collect(copied / "results")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite(copied: Path, value: float) -> None:
    change(copied / "results/encoder/two.json", lambda content: content["metrics"].update({"map": value}))
    with pytest.raises(DataError, match=r"two\.json: metrics\.map is (nan|inf), which is not a valid figure"):
        collect(copied / "results")


def test_two_folders_with_one_name(copied: Path) -> None:
    shutil.copytree(copied / "results/encoder", copied / "results/encoder-copy")
    with pytest.raises(DataError, match="both call their model 'encoder'"):
        collect(copied / "results")


def test_a_result_of_other_weights(copied: Path) -> None:
    change(copied / "results/encoder/model.json", lambda content: content.update(identity="sha256:other"))
    with pytest.raises(DataError, match=r"one\.json: its weights are not those that"):
        collect(copied / "results")


def test_a_renamed_result(copied: Path) -> None:
    (copied / "results/encoder/one.json").rename(copied / "results/encoder/three.json")
    with pytest.raises(DataError, match=r"three\.json: holds a result on one"):
        collect(copied / "results")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"dataset": 3}'])
def test_broken_results(copied: Path, content: str) -> None:
    (copied / "results/encoder/one.json").write_text(content)
    with pytest.raises(DataError, match=r"encoder/one\.json: not"):
        collect(copied / "results")


def test_a_model_without_its_keys(copied: Path) -> None:
    change(copied / "results/encoder/model.json", lambda content: content.pop("similarity"))
    with pytest.raises(DataError, match=r"model\.json: the key 'similarity' is missing"):
        collect(copied / "results")


def test_isotropy_of_other_texts(copied: Path) -> None:
    change(copied / "results/encoder/isotropy.json", lambda content: content["one"].update(sha256="f" * 64))
    with pytest.raises(DataError, match="were scored or measured on different texts"):
        collect(copied / "results")


def test_isotropy_that_is_not_finite(copied: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["one"]["passages"]["isoscore"] = float("nan")

    change(copied / "results/encoder/isotropy.json", spoil)
    with pytest.raises(DataError, match=r"isotropy\.json: one\.passages\.isoscore is nan"):
        collect(copied / "results")


def test_isotropy_of_another_shape(copied: Path) -> None:
    change(copied / "results/encoder/isotropy.json", lambda content: content.update(one=5))
    with pytest.raises(DataError, match="one: not a measurement by ragcun"):
        collect(copied / "results")


def test_figures_of_another_format(copied: Path) -> None:
    change(copied / "results/encoder/two.json", lambda content: content.update(format=1))
    with pytest.raises(DataError, match="scored by different rules: format is 3 and 1"):
        collect(copied / "results")


def test_results_without_their_model(copied: Path) -> None:
    (copied / "results/encoder/model.json").unlink()
    with pytest.raises(DataError, match=r"encoder: has results, but no model\.json"):
        collect(copied / "results")


def test_folders_that_hold_no_results(copied: Path) -> None:
    with pytest.raises(UsageError, match="there are no results here") as raised:
        collect(copied)
    assert str(copied / "results") in raised.value.hint
    with pytest.raises(UsageError, match="is a file"):
        collect(copied / "results/encoder/model.json")
