"""The tests and intervals of `report`: do they hold what they promise, do they equal others', and how fast are they?

    pip install ranx statsmodels
    python benchmarks/significance.py uniform     # p-values of 10,000 cases without any difference
    python benchmarks/significance.py coverage    # how often 95 % intervals hold the truth, with few seeds
    python benchmarks/significance.py equal       # against scipy, statsmodels and ranx
    python benchmarks/significance.py speed       # against scipy and ranx

Differences are made as nDCG@10 makes them: bounded, most of them zero, skewed. Targets: p-values uniform (a 5 % test
rejects 4.6 to 5.4 % of 10,000), intervals with seeds hold the truth 93 to 97 times in 100, results equal.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import numpy as np
from scipy import stats

from ragcun_cli.report.statistics.corrections import corrected
from ragcun_cli.report.statistics.differences import Strata
from ragcun_cli.report.statistics.paired import bootstrap_interval, sign_flip_test, t_test
from ragcun_cli.report.statistics.seeds import seed_aware

# Both remember what they were asked before.
FLIP_ANEW, DRAW_ANEW = inspect.unwrap(sign_flip_test), inspect.unwrap(bootstrap_interval)
CASES = 10_000
QUERIES = 100
FLIPS = 10_000  # of each of the 10,000 cases; the command itself takes 100,000


def smooth(generator: np.random.Generator, queries: int) -> np.ndarray[Any, Any]:
    """Of two systems that are alike: skewed scores without ties."""
    one, other = generator.exponential(size=(2, queries))
    return one - other


def differences(generator: np.random.Generator, queries: int) -> np.ndarray[Any, Any]:
    """Of two systems that are alike: half of the queries tie, the others differ by steps of a rank."""
    one, other = (1 / np.log2(2 + generator.integers(0, 11, queries)) for _ in range(2))
    return np.where(generator.random(queries) < 0.5, 0.0, one - other)


def uniform() -> None:
    """Are p-values uniform where there is no difference?"""
    generator = np.random.default_rng(1)
    single, forums = Strata.single(QUERIES), Strata.equal([Strata.single(n) for n in FORUMS])
    kinds = {
        "smooth": (single, smooth), "as nDCG@10": (single, differences), "as nDCG@10, 12 forums": (forums, differences)
    }  # fmt: skip
    for label, (each, draw) in kinds.items():
        queries = sum(each.sizes)
        p = np.empty((CASES, 2))
        for case in range(CASES):
            values = draw(generator, queries)
            p[case] = sign_flip_test(values, each, FLIPS, seed=case), t_test(values, each)
        for name, column in zip(("sign-flip", "paired t"), p.T, strict=True):
            kept = ", ".join(f"{100 * (column < level).mean():.2f} % below {level}" for level in (0.01, 0.05, 0.1))
            distance = stats.kstest(column, "uniform").statistic
            print(f"{label}, {queries} queries, {name}: {kept}; greatest distance from uniform {distance:.4f}")


FORUMS = (5, 8, 10, 10, 12, 15, 20, 20, 25, 30, 40, 60)


def coverage(cases: int = 2000) -> None:
    """How often do 95 % intervals of the difference hold the truth (0), over new seeds and new queries?"""
    generator = np.random.default_rng(2)
    strata = Strata.equal([Strata.single(QUERIES // 4), Strata.single(QUERIES - QUERIES // 4)])
    for seeds, paired in ((3, True), (3, False), (5, True), (5, False)):
        for between_seeds in (0.0, 0.01, 0.03):
            held = {"seeds and queries": 0, "bootstrap of both": 0, "queries alone": 0}
            for _ in range(cases):
                first, second = (_trained(generator, seeds, between_seeds) for _ in range(2))
                found = seed_aware(first, second, strata, paired)
                assert found is not None
                held["seeds and queries"] += found.interval[0] <= 0 <= found.interval[1]
                low, high = _bootstrap_both(first, second, strata, paired, generator)
                held["bootstrap of both"] += low <= 0 <= high
                values = first.mean(axis=0) - second.mean(axis=0)
                held["queries alone"] += t_test(values, strata) >= 0.05
            shown = ", ".join(f"{name} {100 * count / cases:.1f} %" for name, count in held.items())
            kind = "the same in both" if paired else "of their own"
            print(f"{seeds} seeds, {kind}, standard deviation {between_seeds} between them: {shown}", flush=True)


def _trained(generator: np.random.Generator, seeds: int, between_seeds: float) -> np.ndarray[Any, Any]:
    """Scores (seeds, queries) of one system: what a seed does to all queries, a query to all seeds, and the rest."""
    whole = generator.normal(0, between_seeds, (seeds, 1))
    return whole + generator.normal(0, 0.1, (1, QUERIES)) + generator.normal(0, 0.1, (seeds, QUERIES))


def _bootstrap_both(
    first: Any, second: Any, strata: Strata, paired: bool, generator: np.random.Generator, draws: int = 500
) -> tuple[float, float]:
    """What is often done: percentiles over seeds and, in each stratum, queries drawn with replacement."""
    seeds = len(first)
    starts = np.cumsum([0, *strata.sizes[:-1]])
    means = []
    for _ in range(draws):
        some = np.concatenate(
            [start + generator.integers(size, size=size) for start, size in zip(starts, strata.sizes, strict=True)]
        )
        ours = generator.integers(seeds, size=seeds)
        theirs = ours if paired else generator.integers(seeds, size=seeds)
        means.append(strata.mean((first[ours].mean(axis=0) - second[theirs].mean(axis=0))[some]))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def equal() -> None:
    """The same data to all of them."""
    from ranx.statistical_tests import fisher_randomization_test
    from statsmodels.stats.multitest import multipletests

    generator = np.random.default_rng(3)
    worst = {"t-test, scipy": 0.0, "sign-flip, scipy": 0.0, "sign-flip, ranx": 0.0, "bootstrap ends, scipy": 0.0}
    for _ in range(20):
        values = differences(generator, QUERIES) + generator.choice([0, 0.01, 0.03])
        strata = Strata.single(QUERIES)
        zeros = np.zeros(QUERIES)
        flips = sign_flip_test(values, strata)
        theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=100_000, rng=4)
        p_ranx, _ = fisher_randomization_test(values, zeros, 100_000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ends = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=6)
        ours = bootstrap_interval(values, strata)
        for name, distance in (
            ("t-test, scipy", abs(t_test(values, strata) - stats.ttest_rel(values, zeros).pvalue)),
            ("sign-flip, scipy", abs(flips - theirs.pvalue)),
            ("sign-flip, ranx", abs(flips - p_ranx)),
            ("bootstrap ends, scipy", max(np.abs(np.array(ours) - np.array(ends.confidence_interval)))),
        ):
            worst[name] = max(worst[name], float(distance))
    for name, distance in worst.items():
        print(f"{name}: greatest difference {distance:.2g} in 20 cases")
    p_values = generator.random(90) ** 3
    for ours_name, name in (("holm", "holm"), ("bh", "fdr_bh")):
        distance = np.abs(multipletests(p_values, method=name)[1] - corrected(list(p_values), ours_name)).max()
        print(f"{ours_name}, statsmodels: greatest difference {distance:.2g} of 90 p-values")


def speed(rounds: int = 3) -> None:
    """Seconds of 100,000 flips and of 10,000 bootstrap draws, as ratios against the others in the same run."""
    from ranx.statistical_tests import fisher_randomization_test

    generator = np.random.default_rng(7)
    fisher_randomization_test(np.ones(4), np.zeros(4), 10)  # compiles
    for queries in (300, 6980):
        values, strata, zeros = differences(generator, queries), Strata.single(queries), np.zeros(queries)
        batch = max(1, 2_000_000 // queries)  # scipy's own default would take gigabytes

        def scipy_flips(values: Any = values, batch: int = batch) -> None:
            stats.permutation_test(
                (values,), lambda each, axis: np.mean(each, axis=axis), permutation_type="samples",
                n_resamples=100_000, batch=batch, vectorized=True, rng=8,
            )  # fmt: skip

        def ranx_flips(values: Any = values, zeros: Any = zeros) -> None:
            fisher_randomization_test(values, zeros, 100_000)

        def scipy_draws(values: Any = values, batch: int = batch) -> None:
            stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", batch=batch, rng=9)

        sides: dict[str, Callable[[], Any]] = {
            "flips": lambda values=values, strata=strata: FLIP_ANEW(values, strata),
            "flips, scipy": scipy_flips,
            "flips, ranx": ranx_flips,
            "draws": lambda values=values, strata=strata: DRAW_ANEW(values, strata),
            "draws, scipy": scipy_draws,
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                started = time.perf_counter()
                side()
                seconds[name].append(time.perf_counter() - started)
        print(f"{queries} queries: 100,000 flips {measure.spread(seconds['flips'], 4)} s; "
              f"faster than scipy {measure.ratio(seconds['flips, scipy'], seconds['flips'])}, "
              f"than ranx {measure.ratio(seconds['flips, ranx'], seconds['flips'])}; "
              f"10,000 draws {measure.spread(seconds['draws'], 4)} s, "
              f"faster than scipy {measure.ratio(seconds['draws, scipy'], seconds['draws'])}")  # fmt: skip


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["uniform", "coverage", "equal", "speed"])
    {"uniform": uniform, "coverage": coverage, "equal": equal, "speed": speed}[parser.parse_args().what]()


if __name__ == "__main__":
    main()
