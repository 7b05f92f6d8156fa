"""Measurements from a trial of a recipe, and the estimate for a whole training run based on them."""

from __future__ import annotations

from dataclasses import dataclass

from ragcun_cli.recipe.estimates import WRITTEN_A_SECOND, Estimate, ModelSize, Rates, RunCounts, estimate_training
from ragcun_cli.recipe.schema import Recipe


@dataclass(frozen=True)
class Trial:
    """A trial's measurements. losses: of the repeated batch, without dropout, before and after. batch: its triples,
    fewer than in the recipe if its steps would take too long. seconds: median per step.

    training_tokens, encoding_tokens, tokenised: per second; the first is None if the encoder is frozen. longest_tokens:
    in the batch of longest rows. chunk: how many of them are processed at a time, None for all. peak_bytes: process or
    GPU memory. imported_bytes: the process's memory after its imports. start_seconds: imports and all the other work
    before the first step. steps: number of timed steps. on_gpu: whether they ran on one.
    """

    triples: int
    tokens_per_triple: float
    text_tokens: float
    dev_texts: int
    dev_tokens: float
    parameters: int
    trainable: int
    losses: tuple[float, float]
    batch: int
    seconds: float
    training_tokens: float | None
    encoding_tokens: float
    tokenised: float
    longest_tokens: int
    chunk: int | None
    chunk_explained: str
    kept_bytes: float
    peak_bytes: int
    imported_bytes: int
    start_seconds: float
    steps: int
    on_gpu: bool
    device: str

    def counts(self) -> RunCounts:
        """Return the counts for the estimate."""
        return RunCounts(
            self.triples,
            self.tokens_per_triple,
            self.text_tokens,
            self.longest_tokens if self.chunk is None else self.chunk,
            self.dev_texts,
            self.dev_tokens,
        )

    def size(self) -> ModelSize:
        """Return the size for the estimate. A peak may be an earlier trial's, so the memory after imports counts."""
        return ModelSize(self.parameters, self.trainable, self.kept_bytes, self.imported_bytes)

    def rates(self, processes: int) -> Rates:
        """Return the rates for the estimate, assuming that speed grows with the number of processes."""
        return Rates(
            training=None if self.training_tokens is None else self.training_tokens * processes,
            encoding=self.encoding_tokens * processes,
            tokenising=self.tokenised,
            least_step=0.0,
            head_step=self.seconds,
            start=self.start_seconds,
            writing=WRITTEN_A_SECOND,
            basis=(
                f"measured in {self.steps} steps of {self.batch} triples on {self.device}",
                *((f"{processes} processes: assumed to be {processes} times as fast",) if processes > 1 else ()),
            ),
        )


def estimate_of_trial(recipe: Recipe, trial: Trial, processes: int) -> Estimate:
    """Estimate a whole training run on this machine with `processes` processes, from a trial with one."""
    return estimate_training(recipe, trial.counts(), trial.size(), trial.rates(processes))
