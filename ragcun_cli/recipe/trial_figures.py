"""What a trial of a recipe saw, and what a whole training will take by it."""

from __future__ import annotations

from dataclasses import dataclass

from ragcun_cli.recipe.estimates import WRITTEN_A_SECOND, Estimate, ModelSize, Rates, RunCounts, estimate_training
from ragcun_cli.recipe.schema import Recipe


@dataclass(frozen=True)
class Trial:
    """What was seen. losses: of the repeated batch, without dropout, before and after the steps. batch: its triples,
    fewer than the recipe's where its steps would take too long. seconds: of a step, the median.

    training_tokens, encoding_tokens, tokenised: a second; training_tokens is None for a frozen encoder. longest_tokens:
    of the batch of longest rows; chunk: how many of them pass at a time, None for all. peak_bytes: of the process, or
    the GPU's allocations; imported_bytes: what the process had after its imports. start_seconds: imports, and all that
    is made before the first step. steps: that were timed.
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
    device: str

    def counts(self) -> RunCounts:
        """For the estimate."""
        return RunCounts(
            self.triples,
            self.tokens_per_triple,
            self.text_tokens,
            self.longest_tokens if self.chunk is None else self.chunk,
            self.dev_texts,
            self.dev_tokens,
        )

    def size(self) -> ModelSize:
        """For the estimate. A process's peak may be that of an earlier trial, so that what the imports take counts."""
        return ModelSize(self.parameters, self.trainable, self.kept_bytes, self.imported_bytes)

    def rates(self, processes: int) -> Rates:
        """For the estimate: several processes are as much faster as they are many, which is assumed."""
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
    """What a whole training will take on this machine, in so many processes; the trial's was one."""
    return estimate_training(recipe, trial.counts(), trial.size(), trial.rates(processes))
