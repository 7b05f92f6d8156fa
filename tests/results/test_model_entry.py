"""model.json, of this version and of earlier ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ragcun_cli.errors import DataError
from ragcun_cli.results.model_entry import IDENTIFYING, REQUIRED, ModelEntry

ENTRY = ModelEntry(
    name="arm+cosine", kind="trained", identity="sha256:1", path="runs/arm", found_at="/there/runs/arm",
    asked_name="arm", base_model="encoder", base_identity="sha256:2", head="residual", output_dim=8, max_length=64,
    unit_norm_features=False, tokenizer="BertTokenizer", tokenizer_sha256="3" * 64, precision="float32",
    arm={"seed": 1}, similarity="cosine",
)  # fmt: skip


def test_it_is_read_as_it_was_written_in_the_order_of_its_keys(tmp_path: Path) -> None:
    ENTRY.write(tmp_path)
    assert ModelEntry.read(tmp_path) == ModelEntry.find(tmp_path) == ENTRY
    assert list(json.loads((tmp_path / "model.json").read_text())) == [
        "name", "kind", "identity", "path", "found_at", "asked_name", "asked_max_length", "base_model",
        "base_identity", "head", "output_dim", "max_length", "unit_norm_features", "tokenizer", "tokenizer_sha256",
        "precision", "arm", "similarity", "transform", "fit_on", "fit_sha256",
    ]  # fmt: skip


def test_one_of_an_earlier_version_is_read_and_one_without_a_key_is_not(tmp_path: Path) -> None:
    earlier = {key: value for key, value in ENTRY.content().items() if key in REQUIRED}
    assert ModelEntry.of({**earlier, "unknown": 1}) == replace(
        ENTRY, path="", found_at=None, asked_name="arm+cosine", base_model=None, base_identity=None, head=None,
        unit_norm_features=None, tokenizer=None,
    )  # fmt: skip
    for key in REQUIRED:
        (tmp_path / "model.json").write_text(json.dumps({each: earlier[each] for each in earlier if each != key}))
        assert ModelEntry.find(tmp_path) is None
        with pytest.raises(DataError, match=rf"model\.json: the key '{key}' is missing"):
            ModelEntry.read(tmp_path)
    (tmp_path / "model.json").unlink()
    assert ModelEntry.find(tmp_path) is None


@pytest.mark.parametrize("key", IDENTIFYING)
def test_what_decides_a_figure_makes_another_model_and_another_fingerprint(key: str) -> None:
    other = replace(ENTRY, **{key: "other"})
    assert ENTRY.differing(other) == [key]
    assert other.fingerprint("d", "test") != ENTRY.fingerprint("d", "test")


def test_what_decides_none_does_not() -> None:
    other = replace(ENTRY, name="b", path="elsewhere", arm=None, asked_max_length=64)
    assert ENTRY.differing(other) == []
    assert other.fingerprint("d", "test") == ENTRY.fingerprint("d", "test")
    prints = {ENTRY.fingerprint(*of) for of in (("d", "test"), ("e", "test"), ("d", "dev"))}
    assert len(prints | {replace(ENTRY, tokenizer_sha256="4").fingerprint("d", "test")}) == 4


def test_a_new_name_keeps_what_an_evaluation_puts_behind_it() -> None:
    assert ENTRY.suffix == "+cosine"
    renamed = ENTRY.renamed("other+cosine")
    assert (renamed.name, renamed.asked_name, renamed.suffix) == ("other+cosine", "other", "+cosine")
    assert not ENTRY.is_plain
    assert not replace(ENTRY, similarity="euclidean", transform="center").is_plain
    assert replace(ENTRY, similarity="euclidean").is_plain
