"""Check that this installation gives known models their published scores, before its own figures are trusted.

Published: nDCG@10 from the results repository of mteb (https://github.com/embeddings-benchmark/results),
`sentence-transformers__all-MiniLM-L6-v2` revision 8b3219a and `sentence-transformers__all-mpnet-base-v2` revisions
84f2bcc and 9a32259, mteb 1.12.75 to 1.38.3. Both give unit vectors, for which the Euclidean and the cosine ranking
coincide, so these figures check the Euclidean search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.data.registry import KNOWN
from ragcun_cli.data.sources import collection_in
from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate.datasets import find_datasets
from ragcun_cli.evaluate.evaluator import EvaluationSettings, ModelToScore
from ragcun_cli.evaluate.runner import evaluate_models
from ragcun_cli.recipe.problems import did_you_mean

TOLERANCE = 0.0005

XQUAD = "xquad-en"  # the English part of mteb's XQuADRetrieval: 240 passages

# Small public sets; the larger ones take hours without a GPU and check nothing more.
PUBLISHED = {
    "all-MiniLM-L6-v2": {
        "scifact": 0.64508,
        "nfcorpus": 0.31594,
        "arguana": 0.50167,
        "fiqa": 0.36867,
        "scidocs": 0.21641,
        XQUAD: 0.94357,
    },
    "all-mpnet-base-v2": {
        "scifact": 0.65570,
        "nfcorpus": 0.33289,
        "arguana": 0.46521,
        "fiqa": 0.49963,
        "scidocs": 0.23765,
    },
}


@dataclass(frozen=True)
class ScoreCheck:
    """One known score. measured: None if the dataset is not here; `how` then says how to get it."""

    dataset: str
    published: float
    measured: float | None
    how: str = ""

    @property
    def passed(self) -> bool:
        """Whether the score is the published one, within TOLERANCE."""
        return self.measured is not None and abs(self.measured - self.published) <= TOLERANCE


def selfcheck(model: str, names: Sequence[str], data_folder: Path, results: Path) -> list[ScoreCheck]:
    """Score a known model on those of its datasets that are here.

    Args:
        model: a known model: embedded, on the hub, or a folder named after it.
        names: datasets by name or path; all known ones in the data folder by default.

    Raises:
        UsageError: if nothing is published for the model, or none of its datasets are here.
    """
    known = model.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    if known not in PUBLISHED:
        raise UsageError(f"--model {model}: it has no published scores; {did_you_mean(known, list(PUBLISHED))}")
    published = PUBLISHED[known]
    wanted = list(names) or [name for name in published if name in KNOWN or _is_here(name, data_folder)]
    datasets, missing = find_datasets(wanted, data_folder, None)
    unknown = next((dataset.name for dataset in datasets if dataset.name not in published), None)
    if unknown is not None:
        raise UsageError(
            f"--datasets {unknown}: {known} has no published score on it", f"Available: {', '.join(published)}."
        )
    written = evaluate_models(
        [ModelToScore(model, known)], datasets, results, EvaluationSettings(robustness=False), overwrite=True
    )
    measured = {result.name: result.metrics["ndcg@10"] for result in written}
    checks = [ScoreCheck(name, published[name], score) for name, score in measured.items()]
    return checks + [
        ScoreCheck(each.name, published[each.name], None, each.how) for each in missing if each.name in published
    ]


def _is_here(name: str, folder: Path) -> bool:
    return collection_in(folder, name) is not None
