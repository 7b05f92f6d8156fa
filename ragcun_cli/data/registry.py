"""The datasets of BEIR (arXiv 2104.08663) and MS MARCO: their sources, sizes and scoring rules.

Addresses, sizes and md5 sums come from BEIR's README; ir_datasets independently has the same sums. (BEIR's own
md5.csv has wrong ones for fever and webis-touche2020.) Passages, queries and judgements of the score split were counted
by ir_datasets and, for the licensed sets, by Anserini. Licences of texts come from MTEB's task metadata
(revision a905523); BEIR itself does not vouch for any.

Training sets come from the Hugging Face Hub, pinned to a commit whose files the Hub lists with their sha256, and from
MS MARCO's own server.
"""

from __future__ import annotations

from collections.abc import Collection as SomeOf
from dataclasses import dataclass

SERVER = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"
IN_DOMAIN = "msmarco"  # the 19th row: models are trained on it, so it is not zero-shot
MSMARCO_CORPUS = "msmarco-corpus"


@dataclass(frozen=True)
class KnownDataset:
    """One dataset, a row of a paper's table.

    passages, queries, judgements: of the scored split, None if never published. task: what is searched.
    licence: of the texts. score_split: the split that is scored.
    zip_bytes, md5: of the zip on BEIR's server; None for a licensed set, where `obtain` says what to get from where.
    queries_in_corpus: queries are also passages, and a query must not find itself. In other sets equal ids are a
    coincidence (FiQA numbers queries and passages separately), so the rule must not be applied there.
    forums: the parts whose scores are averaged with equal weights, regardless of their number of queries.
    """

    name: str
    passages: int
    queries: int
    judgements: int | None
    zip_bytes: int | None = None
    md5: str | None = None
    task: str = ""
    licence: str = ""
    obtain: str = ""
    score_split: str = "test"
    queries_in_corpus: bool = False
    forums: tuple[str, ...] = ()
    remark: str = ""

    @property
    def url(self) -> str | None:
        """URL of the zip, None for a licensed set."""
        return None if self.md5 is None else f"{SERVER}/{self.name}.zip"

    def how_to_get(self, folder: str) -> str:
        """Say how to get the dataset into the data folder."""
        where = "" if folder == "data" else f" --data-dir {folder}"
        if self.md5 is None:
            return f"licensed: {self.obtain}; then: ragcun data import {self.name} --from FOLDER{where}"
        assert self.zip_bytes is not None
        return f"ragcun data download {self.download_name}{where} ({self.zip_bytes / 1e6:,.0f} MB)"

    @property
    def download_name(self) -> str:
        """Its name in `ragcun data download`, where `msmarco` means the training set."""
        return MSMARCO_CORPUS if self.name == IN_DOMAIN else self.name


FORUMS = (
    "android", "english", "gaming", "gis", "mathematica", "physics", "programmers", "stats", "tex", "unix",
    "webmasters", "wordpress",
)  # fmt: skip

_ROWS = (
    KnownDataset(
        "trec-covid", 171_332, 50, 66_336, 73_876_720, "ce62140cb23feb9becf6270d0d1fe6d1",
        task="biomedical articles", licence="not stated",
    ),
    KnownDataset(
        "nfcorpus", 3_633, 323, 12_334, 2_448_432, "a89dba18a62ef92f7d323ec890a0d38d",
        task="nutrition", licence="not stated",
    ),
    KnownDataset(
        "bioasq", 14_914_603, 500, 2_359,
        task="biomedical questions", licence="BioASQ registration",
        obtain="BioASQ task 9a, training v.2020, and the list of documents, from http://bioasq.org",
    ),
    KnownDataset(
        "nq", 2_681_468, 3_452, 4_201, 498_307_926, "d4d3d2e48787a744b6f6e691ff534307",
        task="questions to Wikipedia", licence="CC BY-NC-SA 3.0",
    ),
    KnownDataset(
        "hotpotqa", 5_233_329, 7_405, 14_810, 654_025_350, "f412724f78b0d91183a0e86805e16114",
        task="two-hop questions", licence="CC BY-SA 4.0",
    ),
    KnownDataset(
        "fiqa", 57_638, 648, 1_706, 17_948_027, "17918ed23cd04fb15047f73e6c3bd9d9",
        task="finance questions", licence="not stated",
    ),
    KnownDataset(
        "signal1m", 2_866_315, 97, 1_899,
        task="tweets on news", licence="Signal Media form",
        obtain="tweets of Signal-1M (https://research.signal-ai.com), whose texts must be fetched by their ids",
    ),
    KnownDataset(
        "trec-news", 594_589, 57, 15_655,
        task="background to news", licence="NIST agreement",
        obtain="the TREC Washington Post collection v2, from https://trec.nist.gov/data/wapost",
    ),
    KnownDataset(
        "robust04", 528_036, 249, 311_410,
        task="news, hard topics", licence="NIST agreement",
        obtain="TREC disks 4 and 5, from https://trec.nist.gov/data/cd45; queries are the descriptions",
    ),
    KnownDataset(
        "arguana", 8_674, 1_406, 1_406, 3_773_617, "8ad3e3c2a5867cdced806d6503f29b99",
        task="counter-arguments", licence="CC BY-SA 4.0",
        queries_in_corpus=True,
    ),
    KnownDataset(
        "webis-touche2020", 382_545, 49, 2_214, 227_132_363, "46f650ba5a527fc69e0a6521c5a23563",
        task="arguments", licence="CC BY-SA 4.0",
        remark="version 2, as in BEIR's zip; figures of versions 1 and 3 are not comparable",
    ),
    KnownDataset(
        "cqadupstack", 457_199, 13_145, None, 5_343_728_040, "4e41456d7df8ee7760a7f866133bda78",
        task="duplicate questions, 12 forums", licence="Apache-2.0",
        forums=FORUMS,
        remark="the mean of 12 forums, each with the same weight",
    ),
    KnownDataset(
        "quora", 522_931, 10_000, 15_675, 15_853_968, "18fb154900ba42a600f84b839c173167",
        task="duplicate questions", licence="not stated",
        queries_in_corpus=True,
    ),
    KnownDataset(
        "dbpedia-entity", 4_635_922, 400, 43_515, 639_285_131, "c2a39eb420a3164af735795df012ac2c",
        task="entities", licence="MIT",
    ),
    KnownDataset(
        "scidocs", 25_657, 1_000, 29_928, 142_471_588, "38121350fc3a4d2f48850f6aff52e4a9",
        task="citations", licence="CC BY-SA 4.0",
    ),
    KnownDataset(
        "fever", 5_416_568, 6_666, 7_937, 1_236_988_269, "5a818580227bfb4b35bb6fa46d9b6c03",
        task="fact checking", licence="CC BY-NC-SA 3.0",
    ),
    KnownDataset(
        "climate-fever", 5_416_593, 1_535, 4_681, 1_228_666_652, "8b66f0a9126c521bae2bde127b4dc99d",
        task="climate claims", licence="CC BY-SA 4.0",
    ),
    KnownDataset(
        "scifact", 5_183, 300, 339, 2_816_079, "5f7d1de60b170fc8027bb7898e2efca1",
        task="scientific claims", licence="CC BY-NC 4.0",
    ),
    KnownDataset(
        "msmarco", 8_841_823, 6_980, 7_437, 1_082_258_632, "444067daf65d982533ea17ebd59501e4",
        task="web questions, in domain", licence="research, not commercial",
        score_split="dev",
        remark="its dev split; the zip's test split is TREC-DL 2019, 43 graded queries",
    ),
)  # fmt: skip

KNOWN = {row.name: row for row in _ROWS}

ALL = tuple(KNOWN)
PUBLIC = tuple(name for name in ALL if KNOWN[name].md5 is not None and name != IN_DOMAIN)
BEIR = tuple(name for name in ALL if name != IN_DOMAIN)
GROUPS = {"all": ALL, "public": PUBLIC}


@dataclass(frozen=True)
class SourceFile:
    """A file of a training set. address: a URL, or `hf:<repository>@<commit>/<path>` for a dataset on the Hub.

    bytes: as published, rounded for Hub files, because the Hub gives the exact size before a download. digest: such as
    `md5:c13b...`, None if only the Hub knows it.
    """

    address: str
    bytes: int
    digest: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The file's name."""
        return self.address.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class TrainingSet:
    """A training set. shape: format of its files, each read by `data.msmarco`; rows: approximate number of triples."""

    name: str
    task: str
    licence: str
    shape: str
    rows: int
    files: tuple[SourceFile, ...]

    @property
    def bytes(self) -> int:
        """Total size of all files."""
        return sum(file.bytes for file in self.files)

    def how_to_get(self, folder: str) -> str:
        """Say how to get it into the data folder."""
        where = "" if folder == "data" else f" --data-dir {folder}"
        return f"ragcun data download {self.name}{where} ({self.bytes / 1e6:,.0f} MB)"


RESEARCH = "research, not commercial"
_TAS_B = (
    "hf:sentence-transformers/msmarco-msmarco-distilbert-base-tas-b@ae4cfba10db1c6f3f9a83e95e44a58fe2906e7ae/triplet"
)
_MS_MARCO = "hf:microsoft/ms_marco@a47ee7aae8d7d466ba15f9f0bfac3b3681087b3a"
_MEGABYTE = 10**6

_TRAINING = (
    TrainingSet(
        "msmarco",
        "500k triples with negatives mined by TAS-B, and a dev set",
        RESEARCH,
        "triplets",
        502_939,
        (
            SourceFile(
                f"{_TAS_B}/train-00000-of-00002.parquet",
                169 * _MEGABYTE,
                "sha256:3fe354e2b8fe71b55fc18006f533a1a675b213c83f4cf194c8d034d10a8e9cb7",
            ),
            SourceFile(f"{_TAS_B}/train-00001-of-00002.parquet", 169 * _MEGABYTE),
        ),
    ),
    TrainingSet(
        "msmarco-small",
        "500k of the official triples.train.small, and a dev set",
        RESEARCH,
        "tsv in tar",
        500_000,
        (
            SourceFile(
                "https://msmarco.z22.web.core.windows.net/msmarcoranking/triples.train.small.tar.gz",
                7_930_881_353,
                "md5:c13bf99ff23ca691105ad12eab837f84",
                (("X-Ms-Version", "2019-12-12"),),
            ),
        ),
    ),
    TrainingSet(
        "msmarco-v1.1",
        "ms_marco v1.1: passages selected or not, and a dev set",
        RESEARCH,
        "judged passages",
        82_000,
        (SourceFile(f"{_MS_MARCO}/v1.1/train-00000-of-00001.parquet", 175 * _MEGABYTE),),
    ),
    TrainingSet(
        "msmarco-v2.1",
        "ms_marco v2.1: the same with more queries, and a dev set",
        RESEARCH,
        "judged passages",
        503_000,
        tuple(
            SourceFile(f"{_MS_MARCO}/v2.1/train-0000{number}-of-00007.parquet", 242 * _MEGABYTE) for number in range(7)
        ),
    ),
)

TRAINING = {each.name: each for each in _TRAINING}
# Groups that `ragcun data download` accepts in addition to names. `msmarco` is not one: it is a training set.
DOWNLOADS = {
    "beir": PUBLIC,
    "all": (*(KNOWN[name].download_name for name in ALL if KNOWN[name].md5 is not None), "msmarco"),
}

# Mean words per passage, BEIR's Table 1 (arXiv 2104.08663), for estimating the cost of an evaluation.
WORDS_PER_PASSAGE = {
    "msmarco": 56.0, "trec-covid": 160.8, "nfcorpus": 232.3, "bioasq": 202.6, "nq": 78.9, "hotpotqa": 46.3,
    "fiqa": 132.3, "signal1m": 13.9, "trec-news": 634.8, "robust04": 466.4, "arguana": 166.8,
    "webis-touche2020": 292.4, "cqadupstack": 129.1, "quora": 11.4, "dbpedia-entity": 49.7, "scidocs": 176.2,
    "fever": 84.8, "climate-fever": 84.8, "scifact": 213.6,
}  # fmt: skip

# Datasets that search the passages of another one (but for 25, here), which are encoded once for both.
SHARED_CORPORA = {"climate-fever": "fever"}

# Labels of averages over datasets. Papers mean different sets by "BEIR", so each label says which.
AVERAGES = {
    "BEIR, 18 sets": BEIR,
    "BEIR, 14 public sets": PUBLIC,
    "BEIR, 14 public sets and MS MARCO": (*PUBLIC, IN_DOMAIN),
}


def known_dataset(name: str) -> KnownDataset | None:
    """Return the registry's dataset of this name, in any case, or None."""
    return KNOWN.get(name.lower())


def complete_averages(names: SomeOf[str]) -> dict[str, tuple[str, ...]]:
    """Map label to datasets for the averages whose datasets are all among the names."""
    return {label: members for label, members in AVERAGES.items() if set(members) <= set(names)}
