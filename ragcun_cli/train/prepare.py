"""From a recipe to a `Training`: data read, texts tokenised or encoded, model built, memory probed.

Nothing here writes into the run folder: an interruption or a mistake up to here destroys no earlier run.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ragcun_cli.arrays import Numbers
from ragcun_cli.console import StepProgress, note
from ragcun_cli.data.batches import BatchSequence
from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.collection import Collection, read_collection
from ragcun_cli.data.exclusion import ExclusionCounts, read_excluded, without
from ragcun_cli.data.registry import known_dataset
from ragcun_cli.data.sources import dev_collection, training_file
from ragcun_cli.data.token_cache import TokenisedTexts, tokenised_texts
from ragcun_cli.data.tokens import NumberedTexts, TokenBatch
from ragcun_cli.data.triples.prepared import open_triples
from ragcun_cli.data.triples.table import TripleTable
from ragcun_cli.errors import EnvironmentUnfit, ModelError, UsageError
from ragcun_cli.evaluate.scoring import Encode
from ragcun_cli.files import expanded
from ragcun_cli.losses.objective import Objective
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.model.backbone import longest_input
from ragcun_cli.model.feature_store import FeatureStore
from ragcun_cli.model.head import ResidualHead
from ragcun_cli.model.sources import locate_model
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.runs.folder import RunFolder
from ragcun_cli.runs.status import Progress
from ragcun_cli.train.optimiser import add_objective, build_optimiser
from ragcun_cli.train.plan import TrainingPlan
from ragcun_cli.train.precision import Hardware
from ragcun_cli.train.random_state import first_random_state
from ragcun_cli.train.stopping import StopRequests
from ragcun_cli.train.strategy import ParallelLayout, choose_strategy, open_accelerator, wrap
from ragcun_cli.train.training import (
    MakeInput,
    Training,
    encode_features,
    encode_tokens,
    features_of,
    first_batches,
    tokens_by_text,
)
from ragcun_cli.train.world import ALONE, World, barrier, first_on_each_machine

EncodeWith = Callable[[IsotropicGaussianEncoder], Encode]

CALIBRATION_TRIPLES = 128  # 256 texts give the standard deviation over all dimensions to about 1 %
PADDING_BATCHES = 100  # the batches whose padding is counted


@dataclass(frozen=True)
class ArmData:
    """The texts of one arm, read and checked. excluded: what was left out of the triples; excluded_sha256: of the
    collections that they were compared with.
    """

    table: TripleTable
    train_sha256: str
    dev: Collection | None
    excluded: ExclusionCounts = field(default_factory=ExclusionCounts)
    excluded_sha256: str | None = None


def read_data(recipe: Recipe) -> ArmData:
    """Read the training triples and the dev set.

    Raises:
        UsageError, DataError: as `open_triples` and `read_collection` say.
    """
    root = expanded(recipe.data.folder)
    train = training_file(recipe.data.train, root)
    table, train_sha256 = open_triples(train, recipe.data.max_bad_rows)
    excluded, counts = read_excluded(recipe.data.exclude, root, "data.exclude"), ExclusionCounts()
    if excluded is not None:
        table, counts = without(table, excluded)
        note(f"data.exclude ({', '.join(excluded.names)}): {counts.sentence} from {recipe.data.train}.")
    dev = None
    if recipe.data.dev is not None:
        dev = read_collection(dev_collection(recipe.data.dev, root), preferred=("dev", "test"))
        known = known_dataset(dev.name)
        if dev.split == ("test" if known is None else known.score_split):
            note(f"{recipe.data.dev}: the best model is chosen on its {dev.split} split; do not report that score.")
    return ArmData(table, train_sha256, dev, counts, None if excluded is None else excluded.sha256)


def build_encoder(recipe: Recipe) -> IsotropicGaussianEncoder:
    """Build the encoder as it is before its first step, except for the head's scale.

    Raises:
        UsageError: if the base model cannot do what the recipe asks of it.
    """
    encoder = IsotropicGaussianEncoder.from_base(
        recipe.base_model,
        output_dim=recipe.output_dim,
        head=recipe.head,
        max_length=recipe.max_length,
        revision=recipe.base_revision,
        seed=recipe.seed,
    )
    limit = longest_input(encoder.network)
    if recipe.max_length > limit:
        raise UsageError(
            f"max_length: {recipe.max_length} is more than {recipe.base_model} accepts ({limit} tokens)",
            f"--set max_length={limit}",
        )
    if recipe.dropout is not None:
        encoder.set_dropout(recipe.dropout)
    if recipe.gradient_checkpointing:
        encoder.use_gradient_checkpointing()
    if recipe.compile:
        encoder.compile_layers()
    if recipe.freeze_base:
        encoder.network.requires_grad_(False)
    return encoder


def calibrate(
    encoder: IsotropicGaussianEncoder,
    table: TripleTable,
    store: FeatureStore,
    tokens: Callable[[Numbers], TokenBatch],
) -> None:
    """Measure the head's scale on triples from across the file: the same texts for every arm and seed.

    Every arm takes their features from the store, so that all arms get the same scale to the last bit.
    `tokens(numbers)` returns the tokens of these texts of the table.
    """
    if not isinstance(encoder.head, ResidualHead):
        return
    some = slice(None, None, max(1, len(table) // CALIBRATION_TRIPLES))
    pairs = np.stack([table.queries[some], table.positives[some]], axis=1)[:CALIBRATION_TRIPLES]
    numbers = np.array(list(dict.fromkeys(pairs.flatten().tolist())), dtype=np.int64)
    texts = NumberedTexts.of([table.texts[number] for number in numbers.tolist()], lambda few: tokens(numbers[few]))
    encoder.head.calibrate(store.features(texts))


def prepare(
    recipe: Recipe,
    folder: RunFolder,
    data: ArmData,
    plan: TrainingPlan,
    hardware: Hardware,
    world: World = ALONE,
    stop: StopRequests | None = None,
    cache: Path | None = None,
) -> Training:
    """Prepare everything for the first step; `progress` is that of a new run.

    cache: where tokens and features are kept; ragcun's own cache by default.

    Raises:
        RagcunError: naming what is wrong and the cure.
    """
    with first_on_each_machine(world):  # which may download it
        encoder = build_encoder(recipe)
        base_folder = locate_model(recipe.base_model, recipe.base_revision).folder
    trained = sum(each.numel() for each in encoder.parameters() if each.requires_grad)
    strategy = choose_strategy(recipe.parallel, world, trained, hardware)
    accelerator = open_accelerator(
        strategy,
        world,
        plan.precision,
        hardware,
        encoder,
        log_with=list(recipe.trackers) or None,
        project_dir=str(folder.root / "trackers"),
    )
    encoder.to(accelerator.device)
    dev_texts = data.dev.texts() if data.dev is not None else []
    cache = cache or cache_folder()
    store = FeatureStore(encoder, cache)
    with first_on_each_machine(world):
        tokens = _tokenise(recipe, encoder, cache, data.table.texts, "tokenising", data.table.digest)
        dev_tokens = _tokenise(recipe, encoder, cache, dev_texts, "tokenising the dev set")
        calibrate(encoder, data.table, store, tokens.batch)
    dev_lookup = tokens_by_text(dev_texts, dev_tokens)
    model_entry = describe_encoder(encoder)
    if strategy == "fsdp":
        encoder.run_through_layer_calls()
    objective = Objective(recipe).to(accelerator.device)
    model, wrapped_optimiser = wrap(accelerator, encoder, build_optimiser(encoder, recipe))
    add_objective(wrapped_optimiser, objective, recipe)
    batches = BatchSequence(data.table, recipe.batch_size, recipe.seed)
    plan = dataclasses.replace(
        plan,
        tokens_per_text=round(float(tokens.lengths.mean()), 2),
        texts_cut=tokens.cut + dev_tokens.cut,
    )
    if recipe.freeze_base:
        train_texts = NumberedTexts.of(data.table.texts, tokens.batch)
        of_dev = NumberedTexts.of(dev_texts, dev_tokens.batch)
        needed = _needed(recipe, plan, batches, tokens.lengths)
        _encode_once(recipe, store, [train_texts.select(needed), of_dev], world)
        make_input: MakeInput = features_of(store, train_texts, needed)
        encode_with: EncodeWith = _always(encode_features(store, dev_lookup))
    else:
        make_input, encode_with = tokens.batch, functools.partial(encode_tokens, lookup=dev_lookup)
        plan = dataclasses.replace(plan, padding_share=_padding_share(recipe, encoder, plan, batches, tokens.lengths))
    training = Training(
        recipe=recipe,
        plan=plan,
        hardware=hardware,
        folder=folder,
        batches=batches,
        encoder=encoder,
        model=model,
        make_input=make_input,
        text_lengths=tokens.lengths,
        encode_with=encode_with,
        objective=objective,
        optimiser=wrapped_optimiser,
        accelerator=accelerator,
        dev=data.dev,
        progress=Progress(),
        world=world,
        spread=ParallelLayout(strategy, world.size, hardware.device),
        stop=stop or StopRequests(world),
        model_entry=model_entry,
        base_folder=base_folder,
    )
    if recipe.compile:
        _require_compiler(training)
    # Dropout's random numbers start here, the same in each arm whatever was drawn during set-up.
    first_random_state(recipe.seed, world.rank)
    return training


def describe_encoder(encoder: IsotropicGaussianEncoder) -> dict[str, Any]:
    """Describe the model before its first step, for the run folder."""
    return {
        **dataclasses.asdict(encoder.settings),
        "parameters": _count(encoder.network, trainable=False) + _count(encoder.head, trainable=False),
        "trainable_parameters": _count(encoder.network, trainable=True) + _count(encoder.head, trainable=True),
        "head_parameters": _count(encoder.head, trainable=False),
        # Arms of one seed must show the same digest here.
        "initial_weights_sha256": _digest(encoder),
    }


def _count(module: nn.Module, trainable: bool) -> int:
    return sum(each.numel() for each in module.parameters() if each.requires_grad or not trainable)


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _always(encode: Encode) -> EncodeWith:
    """Ignore the encoder passed in: a frozen one's features are stored, and the store has the head being trained."""
    return lambda _: encode


def _needed(recipe: Recipe, plan: TrainingPlan, batches: BatchSequence, lengths: Numbers) -> Numbers:
    """Return the texts that the run will use, by number, longest first, so that a block has similar lengths."""
    if plan.total_steps < plan.steps_per_epoch:
        used = [batch.texts() for batch in first_batches(recipe, plan, batches, plan.total_steps)]
        needed = np.unique(np.concatenate(used))
    else:
        needed = np.arange(len(lengths))
    return needed[np.argsort(-lengths[needed], kind="stable")]


def _encode_once(recipe: Recipe, store: FeatureStore, sources: Sequence[NumberedTexts], world: World) -> None:
    """Encode every text of the run that is not in the cache with the frozen encoder, before the head trains."""
    total = sum(len(texts.keys) for texts in sources)
    if found := total - sum(store.count_missing(texts) for texts in sources):
        note(f"{recipe.name}: the cache has the features of {found} of {total} texts.")
    with StepProgress(f"{recipe.name}: encoding once", total, "texts") as bar:
        for texts in sources:
            if world.size > 1:
                _encode_share(store, texts, world)
            with first_on_each_machine(world):
                store.fill(texts, bar.advance)  # with several processes: what they left damaged or undone


def _encode_share(store: FeatureStore, texts: NumberedTexts, world: World) -> None:
    """Encode this process's share of the missing blocks into the machine's cache."""
    store.vectors.refresh()
    barrier(world)  # nobody writes before all have looked
    store.fill_part(texts, world.local_rank, world.local_size)
    barrier(world)
    store.vectors.refresh()


def _tokenise(
    recipe: Recipe,
    encoder: IsotropicGaussianEncoder,
    cache: Path,
    texts: Sequence[str],
    what: str,
    digest: str | None = None,
) -> TokenisedTexts:
    tokenizer = encoder.text_tokenizer
    with StepProgress(f"{recipe.name}: {what}", len(texts), "texts") as bar:
        tokens = tokenised_texts(texts, tokenizer, cache, bar.advance, digest)
    if len(tokens.ids) and int(tokens.ids.max()) >= tokenizer.vocabulary:
        raise ModelError(
            f"{recipe.base_model}: its tokenizer gives token {int(tokens.ids.max())}, but the model knows only "
            f"{tokenizer.vocabulary}",
            "These files do not belong together.",
        )
    return tokens


def _padding_share(
    recipe: Recipe, encoder: IsotropicGaussianEncoder, plan: TrainingPlan, batches: BatchSequence, lengths: Numbers
) -> float:
    """Return the share of padding among the tokens that the encoder computes for the first batches."""
    real = computed = 0
    for batch in first_batches(recipe, plan, batches, PADDING_BATCHES):
        of_texts = lengths[batch.texts()]
        real += int(of_texts.sum())
        computed += encoder.computed_tokens(of_texts)
    return round(1 - real / computed, 4)


def _require_compiler(training: Training) -> None:
    """Compile now: without a compiler it would fail at the first step."""
    try:
        training.model(TokenBatch.of([[1] * 3, [2] * 3])).sum().backward()
    except Exception as error:  # whatever torch.compile raises without a compiler
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise EnvironmentUnfit(f"compile: torch.compile does not work here: {reason}", "Set compile: false.") from None
    training.optimiser.zero_grad()
