"""The shape of the clouds that are searched: passages and queries separately, and how one lies in the other.

Each figure has its number of texts and dimensions. IsoScore, mean cosine, uniformity and the Epps-Pulley excess do
not depend on the number of texts; effective rank does, so it is computed on the same number everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ragcun_cli.arrays import Figures, Numbers, Vectors
from ragcun_cli.evaluate.isotropy import MINIMUM_TEXTS, Isotropy, measure_isotropy
from ragcun_cli.losses.sigreg import random_directions, sigreg
from ragcun_cli.results.histograms import Histograms
from ragcun_cli.results.isotropy import MeasuredIsotropy, SideIsotropy

SAMPLE = 50_000  # texts at most, 100 MB with 512 dimensions: only the interval's width depends on their number
GROUPS = 64  # of texts, at most; resampled for the interval: single texts would need a covariance for each draw
SCATTER_VALUES = 1 << 25  # of all groups together: fewer groups where there are many dimensions
FEWEST_GROUPS = 8
DRAWS = 500
CONFIDENCE = 0.95
RANK_TEXTS = 1000  # for the effective rank
PAIR_TEXTS = 4096  # for uniformity and the Epps-Pulley statistic
SLICES = 1024
NEIGHBOURS = 10  # for hubness
SEED = 0


@dataclass(frozen=True)
class EmbeddingStats:
    """The shape of n embeddings in D dimensions, as searched: not normalised.

    isoscore: unbiased (Rudman et al., arXiv 2108.07344); interval: 95 %, by bootstrap over groups of texts.
    mean_cosine: of distinct pairs. standard_deviation: root mean square over dimensions.
    effective_rank: exp of the entropy of the singular values' shares (Roy & Vetterli 2007) of `effective_rank_texts`.
    uniformity: log mean exp(-2 |u - v|^2) of directions (Wang & Isola, arXiv 2005.10242), -4 at best.
    epps_pulley_excess: SIGReg's statistic for one text, unbiased, centred and at unit variance: 0 for a Gaussian that
    is the same in all directions, whatever its scale.
    eigenvalues: of the covariance, descending. deviations: of each dimension. A figure is None if there are
    too few texts, or no spread at all.
    """

    texts: int
    dimensions: int
    isoscore: float | None
    interval: tuple[float, float] | None
    mean_cosine: float | None
    standard_deviation: float
    effective_rank: float | None
    effective_rank_texts: int
    uniformity: float | None
    epps_pulley_excess: float | None
    eigenvalues: Figures
    deviations: Figures

    def figures(self) -> SideIsotropy:
        """Return all but the arrays, for a result; of the deviations the least and the greatest."""
        single = {name: value for name, value in asdict(self).items() if name not in ("eigenvalues", "deviations")}
        least, greatest = float(self.deviations.min()), float(self.deviations.max())
        return SideIsotropy(**single, least_deviation=least, greatest_deviation=greatest)


@dataclass(frozen=True)
class Geometry:
    """Both clouds, and how they relate. queries: None if there are fewer than four.

    alignment: mean |u - v|^2 between a query's direction and that of each relevant passage, 0 at best.
    hubness: the skewness of how often a passage is among the 10 nearest of a query; 0 if all are found equally often.
    """

    passages: EmbeddingStats
    queries: EmbeddingStats | None
    alignment: float | None
    hubness: float | None
    histograms: Histograms

    def figures(self) -> MeasuredIsotropy:
        """Return all but the arrays, for a result."""
        return MeasuredIsotropy(
            passages=self.passages.figures(),
            queries=None if self.queries is None else self.queries.figures(),
            alignment=self.alignment,
            hubness=self.hubness,
            hubness_neighbours=NEIGHBOURS,
        )


def sampled_rows(passages: int) -> Numbers:
    """Return the passages to measure: all, or a fixed sample of `SAMPLE`."""
    if passages <= SAMPLE:
        return np.arange(passages)
    return np.sort(np.random.default_rng(SEED).choice(passages, SAMPLE, replace=False))


def measure_stats(embeddings: Vectors) -> EmbeddingStats:
    """Measure the cloud of embeddings (n, D) float32."""
    n, dimensions = embeddings.shape
    isotropy: Isotropy = measure_isotropy(embeddings)
    centred = torch.from_numpy(embeddings - embeddings.mean(axis=0, dtype=np.float64).astype(np.float32))
    scatter = (centred.T @ centred).double().numpy()
    shuffled = np.random.default_rng(SEED).permutation(n)
    return EmbeddingStats(
        texts=n,
        dimensions=dimensions,
        isoscore=isotropy.isoscore,
        interval=_interval(centred, shuffled) if isotropy.isoscore is not None else None,
        mean_cosine=isotropy.mean_cosine,
        standard_deviation=isotropy.standard_deviation,
        effective_rank=_effective_rank(embeddings[shuffled[:RANK_TEXTS]]),
        effective_rank_texts=min(n, RANK_TEXTS),
        uniformity=_uniformity(embeddings[shuffled[:PAIR_TEXTS]]),
        epps_pulley_excess=_epps_pulley_excess(centred[torch.from_numpy(shuffled[:PAIR_TEXTS])], isotropy),
        eigenvalues=np.clip(np.linalg.eigvalsh(scatter / max(n - 1, 1)), 0, None)[::-1],
        deviations=np.sqrt(np.diag(scatter) / max(n - 1, 1)),
    )


def alignment(queries: Vectors, relevant: Vectors) -> float | None:
    """Return the alignment of pairs (n, D) of a query and a passage relevant to it."""
    if not len(queries):
        return None
    one, other = _directions(queries), _directions(relevant)
    return float(((one - other) ** 2).sum(axis=1).mean())


def hubness(nearest: Numbers, passages: int) -> float | None:
    """Return the skewness of how often each passage is found (Radovanovic et al. 2010).

    nearest: (n, 10) passages, -1 for none.
    """
    counts = np.bincount(nearest[nearest >= 0], minlength=passages).astype(np.float64)
    deviation = counts.std()
    return None if deviation == 0 else float((((counts - counts.mean()) / deviation) ** 3).mean())


def mean_stats(clouds: Sequence[EmbeddingStats]) -> EmbeddingStats:
    """Average the clouds of a dataset's parts, figure by figure, None if a part lacks it; numbers of texts add up."""
    if len(clouds) == 1:
        return clouds[0]

    def mean(name: str) -> Any:
        values = [getattr(cloud, name) for cloud in clouds]
        return None if any(value is None for value in values) else float(np.mean(values))

    return EmbeddingStats(
        texts=sum(cloud.texts for cloud in clouds),
        dimensions=clouds[0].dimensions,
        isoscore=mean("isoscore"),
        interval=_mean_interval(clouds),
        mean_cosine=mean("mean_cosine"),
        standard_deviation=mean("standard_deviation"),
        effective_rank=mean("effective_rank"),
        effective_rank_texts=min(cloud.effective_rank_texts for cloud in clouds),
        uniformity=mean("uniformity"),
        epps_pulley_excess=mean("epps_pulley_excess"),
        eigenvalues=np.mean([cloud.eigenvalues for cloud in clouds], axis=0),
        deviations=np.mean([cloud.deviations for cloud in clouds], axis=0),
    )


def _mean_interval(clouds: Sequence[EmbeddingStats]) -> tuple[float, float] | None:
    """Return the interval of the mean over parts. They share no texts, so their errors add up as independent ones."""
    known = [(cloud.isoscore, cloud.interval) for cloud in clouds]
    sides = [(score - ends[0], ends[1] - score) for score, ends in known if score is not None and ends is not None]
    if len(sides) < len(clouds):
        return None
    below, above = (float(np.sqrt(np.square(side).sum())) / len(clouds) for side in zip(*sides, strict=True))
    centre = float(np.mean([score for score, _ in known if score is not None]))
    return centre - below, centre + above


def _interval(centred: torch.Tensor, shuffled: Numbers) -> tuple[float, float] | None:
    """Bootstrap IsoScore: draw groups of texts with replacement, and weight its U-statistics by the groups' counts.

    A text drawn twice is not a pair with itself: such pairs are left out, as in the estimate itself. With S_g and s_g
    a group's scatter and sum, a draw with weights w has the scatter sum w_g S_g - t m m', m = sum w_g s_g / t: its
    trace and Frobenius norm follow from products of groups that are the same for all draws.
    """
    n, dimensions = centred.shape
    groups = min(GROUPS, n // MINIMUM_TEXTS, max(FEWEST_GROUPS, SCATTER_VALUES // dimensions**2))
    if groups < FEWEST_GROUPS:
        return None
    members = [centred[torch.from_numpy(part)] for part in np.array_split(shuffled, groups)]
    scatters = torch.stack([part.T @ part for part in members])
    sums = torch.stack([part.double().sum(dim=0) for part in members])
    squares = [part.double().square().sum(dim=1) for part in members]
    traces = np.array([float(each.sum()) for each in squares])
    fourths = np.array([float(each.square().sum()) for each in squares])
    sizes = np.array([len(part) for part in members])
    flat = scatters.view(groups, -1)
    scatter_products = (flat @ flat.T).double().numpy()
    sum_products = (sums @ sums.T).numpy()
    triples = torch.stack([sums @ scatter.double() @ sums.T for scatter in scatters]).numpy()
    scores = []
    for w in np.random.default_rng(SEED).multinomial(groups, np.full(groups, 1 / groups), size=DRAWS):
        total, repeated = float(w @ sizes), float(w**2 @ fourths)
        pairs = total**2 - float(w**2 @ sizes)
        mean_square = float(w @ sum_products @ w)  # t^2 m'm
        frobenius = w @ scatter_products @ w - 2 * ((triples @ w) @ w) @ w / total + (mean_square / total) ** 2
        trace_of_square = frobenius - repeated
        square_of_trace = (w @ traces - mean_square / total) ** 2 - repeated
        if pairs > 0 and trace_of_square > 0:
            scores.append((square_of_trace / trace_of_square - 1) / (dimensions - 1))
    if len(scores) < DRAWS // 2:
        return None
    low, high = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _effective_rank(embeddings: Vectors) -> float | None:
    values = embeddings.astype(np.float64)
    singular = np.linalg.svd(values - values.mean(axis=0), compute_uv=False)
    if not singular.sum() > 0:
        return None
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _uniformity(embeddings: Vectors) -> float | None:
    if len(embeddings) < 2 or not np.linalg.norm(embeddings, axis=1).all():
        return None
    directions = torch.from_numpy(_directions(embeddings).astype(np.float32))
    n = len(directions)
    similar = torch.exp(4 * (directions @ directions.T) - 4)  # -2 |u - v|^2 = 4 u.v - 4
    mean = (float(similar.double().sum()) - float(similar.diagonal().double().sum())) / (n * (n - 1))
    return float(np.log(mean))


def _epps_pulley_excess(centred: torch.Tensor, isotropy: Isotropy) -> float | None:
    if isotropy.isoscore is None or isotropy.standard_deviation == 0:
        return None
    directions = random_directions(centred.shape[1], SLICES, SEED, 0)
    statistic = sigreg(centred / isotropy.standard_deviation, directions, debias=True)
    return float(statistic) / len(centred)


def _directions(embeddings: Vectors) -> Figures:
    values = embeddings.astype(np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(norms == 0, 1, norms)
