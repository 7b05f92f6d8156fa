"""The registry's facts, and which averages may be called by a name."""

from __future__ import annotations

from ragcun_cli.data.registry import ALL, BEIR, FORUMS, KNOWN, PUBLIC, complete_averages, known_dataset


def test_eighteen_sets_and_ms_marco() -> None:
    assert (len(ALL), len(BEIR), len(PUBLIC), len(FORUMS)) == (19, 18, 14, 12)
    assert [name for name in ALL if KNOWN[name].md5 is None] == ["bioasq", "signal1m", "trec-news", "robust04"]


def test_public_sets_have_address_size_and_md5() -> None:
    public = [KNOWN[name] for name in (*PUBLIC, "msmarco")]
    assert len({each.md5 for each in public}) == 15
    assert all(each.url and each.url.endswith(f"/{each.name}.zip") and len(each.md5 or "") == 32 for each in public)
    assert round(sum(each.zip_bytes or 0 for each in public) / 1e9, 2) == 11.17
    # BEIR's own md5.csv gives scifact's sum for fever.
    assert KNOWN["fever"].md5 == "5a818580227bfb4b35bb6fa46d9b6c03"


def test_special_rules() -> None:
    assert [name for name in ALL if KNOWN[name].queries_in_corpus] == ["arguana", "quora"]
    assert [name for name in ALL if KNOWN[name].score_split != "test"] == ["msmarco"]
    assert [name for name in ALL if KNOWN[name].forums] == ["cqadupstack"]
    assert known_dataset("ArguAna") is KNOWN["arguana"]
    assert known_dataset("mine") is None


def test_every_set_says_what_brings_it() -> None:
    for name in ALL:
        how = KNOWN[name].how_to_get("data")
        assert how.startswith("ragcun data download" if KNOWN[name].md5 else "licensed: ")


def test_an_average_is_named_only_where_it_is_complete() -> None:
    assert complete_averages(PUBLIC[:-1]) == {}
    assert list(complete_averages(PUBLIC)) == ["BEIR, 14 public sets"]
    assert list(complete_averages([*PUBLIC, "msmarco", "mine"])) == [
        "BEIR, 14 public sets",
        "BEIR, 14 public sets and MS MARCO",
    ]
    assert len(complete_averages(ALL)) == 3
