"""SIGReg's two forms against its direct definition: forward and backward, time and memory.

    python benchmarks/regularisers.py [--texts 512] [--dimensions 512] [--slices 1024] [--rounds 15] [--threads 2]

The direct definition takes the cosine and sine of every text, slice and point at once and leaves the gradient to
autograd. Times are medians over rounds of the best of three, in turn, in one process; memory is what a process of
its own grows by. Targets: sliced >= 7x and <= 0.1x memory, exact >= 25x. The other terms are timed for comparison.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure

REPEATS = 3  # in a row, the best counts: the first after another form finds the caches full of that one's numbers
FORMS = ("direct", "sigreg", "sigreg-exact", "covariance", "vicreg", "uniformity", "gor")


def terms(slices: int, dimensions: int) -> dict[str, Callable[[Any], Any]]:
    """Each form as a function of the embeddings (N, D)."""
    import torch

    from ragcun_cli.losses.contrastive import own_squared_distances
    from ragcun_cli.losses.covariance import covariance_to_identity, vicreg
    from ragcun_cli.losses.sigreg import random_directions, sigreg
    from ragcun_cli.losses.sigreg_exact import sigreg_exact
    from ragcun_cli.losses.sphere import spread_out, uniformity

    directions = random_directions(dimensions, slices, seed=0, batch_number=0)
    t = torch.linspace(0, 3, 17)
    normal = torch.exp(-t.square() / 2)
    weights = torch.full_like(t, 2 * 3 / 16)
    weights[[0, -1]] /= 2

    def direct(embeddings: Any) -> Any:
        angles = (embeddings @ directions).unsqueeze(-1) * t
        distance = (angles.cos().mean(0) - normal).square() + angles.sin().mean(0).square()
        return len(embeddings) * (distance @ (weights * normal)).mean()

    def exact(embeddings: Any) -> Any:
        return sigreg_exact(own_squared_distances(embeddings), embeddings.square().sum(1), dimensions)

    return {
        "direct": direct,
        "sigreg": lambda embeddings: sigreg(embeddings, directions),
        "sigreg-exact": exact,
        "covariance": covariance_to_identity,
        "vicreg": vicreg,
        "uniformity": uniformity,
        "gor": spread_out,
    }


def forward_backward(term: Callable[[Any], Any], embeddings: Any) -> float:
    """Wall seconds."""
    import torch

    started = time.perf_counter()
    torch.autograd.grad(term(embeddings), embeddings)
    return time.perf_counter() - started


def growth(name: str, options: argparse.Namespace) -> None:
    """What this process's peak memory grows by in one forward and backward pass, after a tiny one to warm up."""
    import torch

    torch.set_num_threads(options.threads)
    forward_backward(terms(8, options.dimensions)[name], torch.randn(8, options.dimensions, requires_grad=True))
    embeddings = torch.randn(options.texts, options.dimensions, requires_grad=True)
    term = terms(options.slices, options.dimensions)[name]
    torch.mm(embeddings, embeddings.T)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    forward_backward(term, embeddings)
    measure.report(megabytes=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)


def main() -> None:
    """Measure memory, then time, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--slices", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        growth(options.memory_of, options)
        return
    sizes = ["--texts", str(options.texts), "--dimensions", str(options.dimensions), "--slices", str(options.slices)]
    sizes += ["--threads", str(options.threads)]
    # Before torch is loaded here: a new process's peak begins with that of the one that starts it.
    peaks = {
        name: [measure.run(__file__, [*sizes, "--memory-of", name])["megabytes"] for _ in range(3)] for name in FORMS
    }
    taken = timings(options)
    for name in FORMS:
        line = f"{name:<14} {measure.spread(taken[name], 1)} ms, {measure.spread(peaks[name], 1)} MB"
        if name != "direct":
            line += f": {measure.ratio(taken['direct'], taken[name])} the speed"
            line += f", {measure.ratio(peaks[name], peaks['direct'])} the memory"
        print(line)


def timings(options: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of each form in each round."""
    import torch

    torch.set_num_threads(options.threads)
    forms = terms(options.slices, options.dimensions)
    embeddings = torch.randn(options.texts, options.dimensions, requires_grad=True)
    taken: dict[str, list[float]] = {name: [] for name in FORMS}
    for number in range(options.rounds + 2):
        for name in FORMS if number % 2 == 0 else tuple(reversed(FORMS)):
            spent = min(forward_backward(forms[name], embeddings) for _ in range(REPEATS))
            if number > 1:  # the first rounds warm up
                taken[name].append(1000 * spent)
    return taken


if __name__ == "__main__":
    main()
