"""The keys of a recipe, their types, limits and defaults.

The names are familiar to users of the method. Every description is shown by `ragcun recipe copy`,
in editors through `recipes/schema.json`, and in the documentation. The keys are listed nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

RECIPE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, le=1)]


class Strict(BaseModel):
    """Base model that rejects unknown keys, does not convert types (the text "3" is not a number) and is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Parallel = Literal["auto", "ddp", "fsdp"]
IsotropyKind = Literal["none", "sigreg", "sigreg-exact", "covariance", "vicreg", "uniformity", "gor"]
Tracker = Literal["tensorboard", "wandb"]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class DataSettings(Strict):
    """Where the texts come from."""

    train: str = Field(
        description="training triples: a file (JSON, JSON Lines, TSV, CSV or Parquet), a collection in BEIR's layout "
        "(its train split), or a name that `ragcun data list` shows",
        min_length=1,
    )
    dev: str | None = Field(
        None,
        description="what chooses the best model: a collection in BEIR's layout (folder or zip; dev split or "
        "test), a name that `ragcun data list` shows, or null",
        min_length=1,
    )
    exclude: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        description="collections whose queries and answers must not be trained on: triples that have one are dropped "
        "(from all their splits except train); names or paths, such as [DEV, TEST]",
    )
    max_bad_rows: Annotated[int, Field(ge=0)] = Field(
        0, description="how many broken training rows are skipped and counted before they become an error"
    )
    folder: str = Field("data", description="folder for collections that ragcun makes or downloads", min_length=1)


class IsotropyOptions(Strict):
    """How the isotropy term is computed (SIGReg: arXiv 2511.08544, Algorithm 1)."""

    slices: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1024, description="for sigreg: number of random directions, redrawn at each step"
    )
    points: Annotated[int, Field(ge=2, le=1000)] = Field(17, description="for sigreg: points in the integral over t")
    t_max: Annotated[float, Field(gt=0, le=10)] = Field(3.0, description="for sigreg: upper end of the integral over t")
    debias: bool = Field(
        False, description="for sigreg and sigreg-exact: remove the batch-size bias: N(0, I) gives 0, not 1.05"
    )
    reference_batch: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="for sigreg and sigreg-exact: weight the term as the paper does at this batch size; null: "
        "the weight grows with the batch, as in the paper",
    )


class Recipe(Strict):
    """One arm of an experiment, with every value resolved."""

    name: str = Field(
        description="the arm's name in folders and tables (default: the file's name)",
        pattern=RECIPE_NAME,
        max_length=80,
    )
    description: str = Field("", description="one sentence for `ragcun recipe list`")

    base_model: str = Field(
        description="the encoder to start from: a Hub id, a local folder, or embedded:all-MiniLM-L6-v2",
        min_length=1,
    )
    base_revision: str | None = Field(None, description="branch, tag or commit on the Hub; null for the default")
    freeze_base: bool = Field(False, description="true: train only the projection head")
    output_dim: Annotated[int, Field(ge=1, le=65_536)] = Field(512, description="dimensions of an embedding")
    head: Literal["residual", "mlp"] = Field(
        "residual", description="residual: linear skip + MLP that starts at zero; mlp: two layers"
    )
    max_length: Annotated[int, Field(ge=2)] = Field(384, description="tokens per text; longer texts are cut")

    contrastive: Literal["infonce", "triplet"] = Field(
        "infonce", description="infonce: in-batch and hard negatives; triplet: the hard negative and a margin"
    )
    temperature: Annotated[float, Field(ge=0.01, le=10)] = Field(
        0.05, description="for infonce, applied to squared distance / (2 x output_dim)"
    )
    learn_temperature: bool = Field(False, description="true: train the temperature at the head's learning rate")
    triplet_margin: Weight = Field(0.5, description="for triplet, applied to squared distance / (2 x output_dim)")
    isotropy: IsotropyKind = Field(
        "sigreg",
        description="the term weighted by lambda_isotropy: none, sigreg, sigreg-exact, covariance, vicreg, "
        "uniformity or gor",
    )
    lambda_isotropy: Weight = Field(description="weight of the isotropy term; 0 leaves it out")
    lambda_reg: Weight = Field(description="weight of (std - 1)^2; 0 leaves it out")
    isotropy_options: IsotropyOptions = Field(default_factory=lambda: IsotropyOptions())

    epochs: Positive = Field(3, description="passes over the training triples")
    max_steps: Positive | None = Field(
        None, description="stop after this many optimiser steps and fit the schedule to them; null for all"
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(
        16, description="triples per loss, over all devices; they serve as each other's negatives"
    )
    gradient_accumulation_steps: Positive = Field(1, description="losses whose gradients go into an optimiser step")
    gradient_checkpointing: bool = Field(False, description="true: less memory, about a third more time")
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = Field(
        "auto", description="auto: bf16 if the GPU supports it, else fp16; float32 on the CPU"
    )
    base_learning_rate: Rate = Field(1e-5, description="learning rate of the encoder")
    projection_learning_rate: Rate = Field(5e-4, description="learning rate of the projection head")
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="null: the base model's own. Random draws depend on the number of processes; with 0 the losses are "
        "the same on one process and on several, except for rounding",
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(0.01, description="AdamW's weight decay; matrices only")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        1000, description="optimiser steps of linear warm-up, before the cosine"
    )
    max_gradient_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="gradients are clipped to this norm")
    compile: bool = Field(
        False,
        description="true: torch.compile for part of each layer; 0.8x the speed on a CPU; on an H200 0.7x to 1.1x",
    )
    chunk_tokens: Positive | None = Field(
        None,
        description="tokens that pass through each device's encoder at a time; batch and loss stay whole. null: "
        "as many as fit",
    )
    parallel: Parallel = Field(
        "auto",
        description="how several devices share the model. ddp: each has all of it; fsdp: each has a part (FSDP2). fsdp "
        "pays off if weights, gradients and Adam's moments (16 bytes per parameter) leave no room for a batch: from "
        "about 1 billion parameters on a 40 GB GPU. auto: ddp if they take less than half of a GPU, else fsdp",
    )
    seed: Seed = Field(0, description="seed for initial weights, data order and dropout")
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = Field(
        None, description="several seeds: one run for each, in <output_dir>-seed<N>; null: only the value of seed"
    )

    log_every: Positive = Field(10, description="optimiser steps between lines of metrics.jsonl")
    eval_every: Positive | None = Field(
        None, description="optimiser steps between dev scores; null for the end of each epoch"
    )
    save_every: Positive | None = Field(
        None, description="optimiser steps between checkpoints; null for the end of each epoch"
    )
    save_every_minutes: Annotated[float, Field(gt=0)] | None = Field(
        None, description="also save when the last checkpoint is this many minutes old; null: by steps only"
    )
    keep_last: Annotated[int, Field(ge=2)] = Field(
        2, description="checkpoints to keep; at least 2, because a failing disk may corrupt the newest"
    )
    backup: str | None = Field(
        None,
        description="s3://BUCKET/PREFIX or a folder to which checkpoints and final models are copied during "
        "training, under the name of the run's folder; --resume fetches from there what is missing on disk",
        min_length=1,
    )
    keep_models: Literal["all", "best", "final", "none"] = Field(
        "all",
        description="all: the best, the final and each epoch's; best: only the best on dev (without dev, the final "
        "one); final: only the final one; none: no model and, once the run is finished, no "
        "checkpoint (for tuning runs: dev scores are kept)",
    )
    early_stopping: Positive | None = Field(
        None, description="stop after this many dev scores in a row without improvement; null: never"
    )
    trackers: list[Tracker] = Field(
        default_factory=list, description="in addition to metrics.jsonl: [tensorboard], [wandb] or [tensorboard, wandb]"
    )
    output_dir: str = Field(description="the run's folder (default: checkpoints/<name>)", min_length=1)

    data: DataSettings


SMALLEST_COVARIANCE_BATCH = 4  # the unbiased estimate divides by N - 3
FEWEST_EXACT_DIMENSIONS = 16  # sigreg-exact's kernel is an expansion in 1 / D


def cross_field_errors(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield key and problem for values that are allowed individually but not together."""
    kind, options = recipe.isotropy, recipe.isotropy_options
    if kind == "covariance" and recipe.batch_size < SMALLEST_COVARIANCE_BATCH:
        yield "batch_size", f"isotropy: covariance needs at least {SMALLEST_COVARIANCE_BATCH} triples per loss"
    if kind == "sigreg-exact" and recipe.output_dim < FEWEST_EXACT_DIMENSIONS:
        yield "output_dim", f"isotropy: sigreg-exact needs at least {FEWEST_EXACT_DIMENSIONS} dimensions"
    if kind not in ("none", "sigreg", "sigreg-exact"):
        if options.debias:
            yield "isotropy_options.debias", f"isotropy: {kind} has no such option; only sigreg and sigreg-exact do"
        if options.reference_batch is not None:
            yield (
                "isotropy_options.reference_batch",
                f"isotropy: {kind} has no such option, only sigreg and sigreg-exact do",
            )
    if recipe.parallel == "fsdp" and recipe.freeze_base:
        yield "parallel", "fsdp saves nothing if only the head trains (freeze_base: true); use ddp"
    if recipe.early_stopping is not None and recipe.data.dev is None:
        yield "early_stopping", "needs a dev set (data.dev), because it monitors the dev score"
    for key in ("seeds", "trackers"):
        values = getattr(recipe, key) or []
        if len(set(values)) < len(values):
            yield key, "contains the same value twice"
