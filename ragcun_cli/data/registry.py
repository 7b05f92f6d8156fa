"""The datasets of BEIR (arXiv 2104.08663) and MS MARCO: where each comes from, its size, and the rules it is scored by.

Addresses, sizes and md5 sums are those of BEIR's README; ir_datasets keeps the same sums independently. (BEIR's own
md5.csv has wrong ones for fever and webis-touche2020.) Passages, queries and judgements of the score split were counted
by ir_datasets and, for the licensed sets, by Anserini.
"""

from __future__ import annotations

from collections.abc import Collection as SomeOf
from dataclasses import dataclass

SERVER = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"
BEIR_WIKI = "https://github.com/beir-cellar/beir/tree/main/examples/dataset"


@dataclass(frozen=True)
class KnownDataset:
    """One row of the table in a paper.

    score_split: the qrels that count. passages, queries, judgements: in that split, None where nobody published them.
    zip_bytes, md5: of the zip on BEIR's server; None for a licensed set, whose `obtain` says what to do instead.
    queries_in_corpus: the queries are passages too, and a query must not find itself. Elsewhere equal ids are a
    coincidence (FiQA numbers queries and passages apart), so the rule must not be applied there.
    forums: the parts whose scores are averaged, each with the same weight, whatever its number of queries.
    """

    name: str
    passages: int
    queries: int
    judgements: int | None
    zip_bytes: int | None = None
    md5: str | None = None
    obtain: str = ""
    score_split: str = "test"
    queries_in_corpus: bool = False
    forums: tuple[str, ...] = ()
    remark: str = ""

    @property
    def url(self) -> str | None:
        """Of the zip; None for a licensed set."""
        return None if self.md5 is None else f"{SERVER}/{self.name}.zip"

    def how_to_get(self, folder: str) -> str:
        """What brings the dataset to the data folder."""
        if self.md5 is None:
            return f"licensed: {self.obtain}; in BEIR's layout to {folder}/{self.name}/ ({BEIR_WIKI})"
        assert self.zip_bytes is not None
        return f"curl -o {folder}/{self.name}.zip {self.url} ({self.zip_bytes / 1e6:,.0f} MB)"


FORUMS = (
    "android", "english", "gaming", "gis", "mathematica", "physics", "programmers", "stats", "tex", "unix",
    "webmasters", "wordpress",
)  # fmt: skip

_ROWS = (
    KnownDataset("trec-covid", 171_332, 50, 66_336, 73_876_720, "ce62140cb23feb9becf6270d0d1fe6d1"),
    KnownDataset("nfcorpus", 3_633, 323, 12_334, 2_448_432, "a89dba18a62ef92f7d323ec890a0d38d"),
    KnownDataset(
        "bioasq", 14_914_603, 500, 2_359,
        obtain="BioASQ task 9a, training v.2020, and the list of documents, from http://bioasq.org",
    ),
    KnownDataset("nq", 2_681_468, 3_452, 4_201, 498_307_926, "d4d3d2e48787a744b6f6e691ff534307"),
    KnownDataset("hotpotqa", 5_233_329, 7_405, 14_810, 654_025_350, "f412724f78b0d91183a0e86805e16114"),
    KnownDataset("fiqa", 57_638, 648, 1_706, 17_948_027, "17918ed23cd04fb15047f73e6c3bd9d9"),
    KnownDataset(
        "signal1m", 2_866_315, 97, 1_899,
        obtain="tweets of Signal-1M (https://research.signal-ai.com), whose texts must be fetched by their ids",
    ),
    KnownDataset(
        "trec-news", 594_589, 57, 15_655,
        obtain="the TREC Washington Post collection v2, from https://trec.nist.gov/data/wapost",
    ),
    KnownDataset(
        "robust04", 528_036, 249, None,
        obtain="TREC disks 4 and 5, from https://trec.nist.gov/data/cd45; queries are the descriptions",
    ),
    KnownDataset(
        "arguana", 8_674, 1_406, 1_406, 3_773_617, "8ad3e3c2a5867cdced806d6503f29b99", queries_in_corpus=True
    ),
    KnownDataset(
        "webis-touche2020", 382_545, 49, 2_214, 227_132_363, "46f650ba5a527fc69e0a6521c5a23563",
        remark="version 2, as in BEIR's zip; figures of versions 1 and 3 are not comparable",
    ),
    KnownDataset(
        "cqadupstack", 457_199, 13_145, None, 5_343_728_040, "4e41456d7df8ee7760a7f866133bda78", forums=FORUMS,
        remark="the mean of 12 forums, each with the same weight",
    ),
    KnownDataset(
        "quora", 522_931, 10_000, 15_675, 15_853_968, "18fb154900ba42a600f84b839c173167", queries_in_corpus=True
    ),
    KnownDataset("dbpedia-entity", 4_635_922, 400, 43_515, 639_285_131, "c2a39eb420a3164af735795df012ac2c"),
    KnownDataset("scidocs", 25_657, 1_000, 29_928, 142_471_588, "38121350fc3a4d2f48850f6aff52e4a9"),
    KnownDataset("fever", 5_416_568, 6_666, 7_937, 1_236_988_269, "5a818580227bfb4b35bb6fa46d9b6c03"),
    KnownDataset("climate-fever", 5_416_593, 1_535, 4_681, 1_228_666_652, "8b66f0a9126c521bae2bde127b4dc99d"),
    KnownDataset("scifact", 5_183, 300, 339, 2_816_079, "5f7d1de60b170fc8027bb7898e2efca1"),
    KnownDataset(
        "msmarco", 8_841_823, 6_980, 7_437, 1_082_258_632, "444067daf65d982533ea17ebd59501e4", score_split="dev",
        remark="its dev split; the zip's test split is TREC-DL 2019, 43 graded queries",
    ),
)  # fmt: skip

KNOWN = {row.name: row for row in _ROWS}
IN_DOMAIN = "msmarco"  # the 19th row: what the models are trained on is not zero-shot

ALL = tuple(KNOWN)
PUBLIC = tuple(name for name in ALL if KNOWN[name].md5 is not None and name != IN_DOMAIN)
BEIR = tuple(name for name in ALL if name != IN_DOMAIN)
GROUPS = {"all": ALL, "public": PUBLIC}

# What an average over datasets is called. Papers mean different sets by "BEIR", so a label always says which.
AVERAGES = {
    "BEIR, 18 sets": BEIR,
    "BEIR, 14 public sets": PUBLIC,
    "BEIR, 14 public sets and MS MARCO": (*PUBLIC, IN_DOMAIN),
}


def known_dataset(name: str) -> KnownDataset | None:
    """The registry's row of this name, in any case; None for any other collection."""
    return KNOWN.get(name.lower())


def complete_averages(names: SomeOf[str]) -> dict[str, tuple[str, ...]]:
    """Label -> its datasets, for those averages all of whose datasets are among the names."""
    return {label: members for label, members in AVERAGES.items() if set(members) <= set(names)}
