"""isotropy.json is read as it was written, entry by entry, and refused by its path where it is not one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragcun_cli.errors import DataError
from ragcun_cli.results.isotropy import (
    IsotropyEntry,
    MeasuredIsotropy,
    SideIsotropy,
    find_isotropy,
    put_isotropy,
    read_isotropy,
)

PASSAGES = SideIsotropy(
    texts=9, dimensions=4, isoscore=0.9, interval=(0.8, 0.95), mean_cosine=0.1, standard_deviation=1.0,
    effective_rank=3.5, effective_rank_texts=9, uniformity=-3.0, epps_pulley_excess=0.01, least_deviation=0.5,
    greatest_deviation=1.5,
)  # fmt: skip
QUERIES = SideIsotropy(texts=5, dimensions=4)
BOTH = MeasuredIsotropy(passages=PASSAGES, queries=QUERIES, alignment=0.3, hubness=1.2, hubness_neighbours=10)


def test_entries_are_read_as_they_were_written(tmp_path: Path) -> None:
    one, two = (
        IsotropyEntry("test", "a", BOTH),
        IsotropyEntry("dev", "b", MeasuredIsotropy(passages=QUERIES, queries=None)),
    )
    put_isotropy(tmp_path, "two", two)
    put_isotropy(tmp_path, "one", one)
    assert read_isotropy(tmp_path) == {"one": one, "two": two}
    assert (find_isotropy(tmp_path, "one"), find_isotropy(tmp_path, "three")) == (one, None)
    written = json.loads((tmp_path / "isotropy.json").read_text())
    assert list(written) == ["one", "two"]
    assert list(written["one"])[:3] == ["split", "sha256", "passages"]
    assert written["one"]["passages"]["interval"] == [0.8, 0.95]
    put_isotropy(tmp_path, "one", two)
    assert read_isotropy(tmp_path) == {"one": two, "two": two}


def test_sides_go_by_their_names() -> None:
    assert (BOTH.side("passages"), BOTH.side("queries")) == (PASSAGES, QUERIES)


def test_a_file_with_keys_of_another_version_is_read(tmp_path: Path) -> None:
    put_isotropy(tmp_path, "one", IsotropyEntry("test", "a", BOTH))
    path = tmp_path / "isotropy.json"
    content = json.loads(path.read_text())
    content["one"]["passages"]["later"] = 1
    del content["one"]["hubness"]
    path.write_text(json.dumps(content))
    measured = read_isotropy(tmp_path)["one"].measured
    assert (measured.passages, measured.hubness) == (PASSAGES, None)


OF = {"split": "test", "sha256": "a", "queries": None}


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {"split": "test", "sha256": "a"},
        {**OF, "passages": 3},
        {**OF, "passages": {"texts": 1}},
        {**OF, "passages": {"texts": 1, "dimensions": 2, "interval": [1]}},
    ],
)
def test_another_shape_is_refused_by_its_path(tmp_path: Path, entry: object) -> None:
    (tmp_path / "isotropy.json").write_text(json.dumps({"one": entry}))
    with pytest.raises(DataError, match=r"isotropy\.json: one: not a measurement by ragcun"):
        read_isotropy(tmp_path)
    assert find_isotropy(tmp_path, "one") is None


def test_no_file_is_no_entries(tmp_path: Path) -> None:
    assert read_isotropy(tmp_path) == {}
    assert find_isotropy(tmp_path, "one") is None
