"""Test whether the mean of paired differences is zero: two tests, an interval, and the detectable difference.

The randomisation test assumes only that a difference is as likely to point one way as the other if the two systems
are alike; it and the t-test are what Urbano et al. (SIGIR 2019) and Ihemelandu & Ekstrand (arXiv 2305.02461) recommend.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np
from scipy.special import stdtr, stdtrit

from ragcun_cli.arrays import Figures
from ragcun_cli.report.statistics.differences import Strata, standard_error

Given = ParamSpec("Given")
Result = TypeVar("Result")

FLIPS = 100_000
DRAWS = 10_000  # of the bootstrap
CONFIDENCE = 0.95
POWER = 0.8
SEED = 0
BITS = 8  # in a random byte, each the sign of one difference
ROUNDING = 1e-10  # relative to the sum: sums in another order differ in the last digits but count as equal
BLOCK = 1 << 22  # queries drawn at a time: 32 MB


def remembered(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Compute each answer only once: a page and `verify` need the same comparisons for several tables."""
    known: dict[bytes, Result] = {}

    @functools.wraps(function)
    def answer(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        parts = [each.tobytes() if isinstance(each, np.ndarray) else repr(each).encode() for each in args]
        key = hashlib.sha256(b"\0".join([*parts, repr(kwargs).encode()])).digest()
        if key not in known:
            known[key] = function(*args, **kwargs)
        return known[key]

    return answer


@remembered
def sign_flip_test(values: Figures, strata: Strata, flips: int = FLIPS, seed: int = SEED) -> float:
    """Two-sided p-value of Fisher's randomisation test on (n,) differences: (c + 1) / (flips + 1), c counting draws of
    random signs whose mean is at least as far from zero (Phipson & Smyth 2010: never 0).

    It takes eight differences at a time: a random byte picks one of the 256 sums that their signs can make.
    """
    generator = np.random.default_rng(seed)
    contributions = (values * strata.shares())[values != 0]  # a zero is the same under either sign
    padded = np.zeros(-(-len(contributions) // BITS) * BITS)
    padded[: len(contributions)] = contributions
    signs = 1.0 - 2.0 * ((np.arange(1 << BITS)[:, None] >> np.arange(BITS)) & 1)  # (256, 8); row 0 is all plus
    sums, seen = np.zeros(flips), 0.0
    for eight in padded.reshape(-1, BITS):
        table = signs @ eight
        sums += table[generator.integers(0, 1 << BITS, flips, dtype=np.uint8)]
        seen += table[0]
    as_far = np.abs(sums) >= abs(seen) - ROUNDING * np.abs(contributions).sum()
    return (int(as_far.sum()) + 1) / (flips + 1)


def t_test(values: Figures, strata: Strata) -> float:
    """Two-sided p-value of the paired t-test, in Welch's form if there are several strata."""
    error = standard_error(values, strata)
    mean = strata.mean(values)
    if error.value == 0:
        return 1.0 if mean == 0 else 0.0
    return two_sided(mean / error.value, error.degrees)


def two_sided(t: float, degrees: float) -> float:
    """P(|T| >= |t|) for Student's t."""
    return float(2 * stdtr(degrees, -abs(t)))


def t_quantile(probability: float, degrees: float) -> float:
    """A quantile of Student's t."""
    return float(stdtrit(degrees, probability))


@remembered
def bootstrap_interval(
    values: Figures, strata: Strata, draws: int = DRAWS, confidence: float = CONFIDENCE, seed: int = SEED
) -> tuple[float, float]:
    """An interval of the mean of (n,) differences, by percentiles over queries resampled within each stratum."""
    generator = np.random.default_rng(seed)
    means = np.zeros(draws)
    for part, weight in zip(strata.split(values), strata.weights, strict=True):
        rows = max(1, BLOCK // len(part))
        for start in range(0, draws, rows):
            some = means[start : start + rows]
            drawn = generator.integers(len(part), size=(len(some), len(part)), dtype=np.int32)
            some += weight * part[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def effect_size(values: Figures, strata: Strata) -> float | None:
    """Cohen's d_z: the mean difference in standard deviations of the differences; None if they are all equal."""
    spread = np.sqrt(sum(w * part.var(ddof=1) for w, part in zip(strata.weights, strata.split(values), strict=True)))
    return float(strata.mean(values) / spread) if spread > ROUNDING * np.abs(values).max() else None


def detectable_difference(error: float, degrees: float, significance: float) -> float:
    """The smallest true mean difference that a two-sided t-test at this level would find in 80 of 100 experiments
    whose mean has this standard error.
    """
    return (t_quantile(1 - significance / 2, degrees) + t_quantile(POWER, degrees)) * error
