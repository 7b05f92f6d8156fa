"""A training step against sentence-transformers' own trainer: the same weights, triples, order, loss and optimiser.

    python benchmarks/training.py [--model minilm|mpnet] [--no-dropout] [--triples 320] [--runs 3]
                                  [--batch-size 16] [--precision no|bf16|fp16] [--threads 2] [--compile]

Peer: SentenceTransformerTrainer with MultipleNegativesRankingLoss (20 x cosine, hard negatives included), AdamW, a
cosine schedule, clipping at 1. ragcun trains without a head on the same unit-norm embeddings, so that -d^2 / (2 D
temperature) with temperature 1 / (20 D) is the same loss but for a constant. Each run is a process of its own; the
clock runs from the first step to the last, peak memory is the process's. With --no-dropout the losses of both are
compared step by step, and more than 1e-3 apart is an error. On a GPU, where the first steps are slow, take many more
triples (--triples 20000); the model FLOP utilisation is printed too. The last line says what the publication recipe
(500,000 triples, three epochs) would take at this speed.

Targets on two cores: minilm >= 2.9x and <= 0.5x memory, --no-dropout >= 2.2x, mpnet >= 2.7x.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import models
import texts

MAX_LENGTH = 256
RATE = 2e-5


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["minilm", "mpnet"], default="minilm")
    parser.add_argument("--no-dropout", action="store_true")
    parser.add_argument("--triples", type=int, default=320)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", choices=["no", "bf16", "fp16"], default="no")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile on both sides")
    parser.add_argument("--side", choices=["ragcun", "sentence-transformers"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Train both sides in turn and print the ratios."""
    options = arguments()
    if options.side:
        import torch

        torch.set_num_threads(options.threads)
        {"ragcun": train_ragcun, "sentence-transformers": train_peer}[options.side](options)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        make_inputs(options)
        common = ["--model", options.model, "--triples", str(options.triples), "--batch-size", str(options.batch_size)]
        common += ["--precision", options.precision, "--threads", str(options.threads), "--folder", folder]
        common += ["--no-dropout"] if options.no_dropout else []
        common += ["--compile"] if options.compile else []
        sides = {side: [*common, "--side", side] for side in ("ragcun", "sentence-transformers")}
        results = measure.alternate(__file__, sides, options.runs)
    compare(results, options)


def make_inputs(options: argparse.Namespace) -> None:
    """The triples and the encoder, the same for both."""
    writer = texts.Writer(models.minilm() / "vocab.txt", seed=0)
    lines = [json.dumps(each) + "\n" for each in writer.triples(options.triples)]
    (options.folder / "triples.jsonl").write_text("".join(lines), encoding="utf-8")
    if options.model == "mpnet":
        models.mpnet_shape(options.folder / "mpnet")


def encoder_folder(options: argparse.Namespace) -> Path:
    """Where both sides' encoder lies."""
    return models.minilm() if options.model == "minilm" else options.folder / "mpnet"


def train_ragcun(options: argparse.Namespace) -> None:
    """One epoch through ragcun's own steps."""
    import math

    import torch

    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.train.hardware import find_hardware
    from ragcun_cli.train.memory import choose_chunk
    from ragcun_cli.train.plan import make_plan
    from ragcun_cli.train.prepare import prepare, read_data
    from ragcun_cli.train.run_folder import RunFolder
    from ragcun_cli.train.speed import peak_flops, training_flops_per_token
    from ragcun_cli.train.step import optimiser_step

    os.environ["RAGCUN_CACHE"] = str(options.folder / "cache")
    values = {
        "base_model": encoder_folder(options), "data.train": options.folder / "triples.jsonl", "data.dev": "null",
        "isotropy": "none", "lambda_reg": 0, "max_length": MAX_LENGTH, "epochs": 1, "batch_size": options.batch_size,
        "warmup_steps": 0, "base_learning_rate": RATE, "weight_decay": 0, "mixed_precision": options.precision,
        "output_dir": options.folder / "run", "compile": str(options.compile).lower(),
    }  # fmt: skip
    recipe = load_recipe("isotropy", [f"{key}={value}" for key, value in values.items()])
    data, hardware = read_data(recipe), find_hardware()
    training = prepare(recipe, RunFolder.of(recipe), data, make_plan(recipe, data.table, hardware), hardware)
    without_head(training)
    if options.no_dropout:
        models.without_dropout(training.encoder.network)
    dimensions = training.encoder.hidden_size
    training.objective.log_temperature.data.fill_(math.log(1 / (20 * dimensions)))
    training.objective.keep_temperature_in_range = lambda: None  # its floor is for trained heads
    losses, tokens, started = [], 0, time.perf_counter()
    choose_chunk(training, data.table)  # as part of the run: the peer has no such thing
    for _ in range(training.plan.total_steps):
        record, counted = optimiser_step(training)
        training.progress.step += 1
        tokens += counted.tokens
        losses.append(record["loss"])
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    figures: dict[str, Any] = {}
    if peak := peak_flops(hardware):
        per_token = training_flops_per_token(training.encoder.network, training.plan.tokens_per_text)
        figures["model_flop_utilisation"] = tokens / seconds * per_token / peak
    trained = training.plan.total_steps * options.batch_size
    measure.report(triples_per_second=trained / seconds, memory=memory(torch), losses=losses, **figures)


def without_head(training: Any) -> None:
    """Train the bare encoder, as the peer does."""
    import torch

    training.encoder.head = torch.nn.Identity()
    heads = [group for group in training.optimiser.param_groups if group["part"] != "base"]
    for group in heads:
        training.optimiser.param_groups.remove(group)


def train_peer(options: argparse.Namespace) -> None:
    """One epoch through the peer's trainer."""
    import torch
    from datasets import Dataset
    from peer import Clock, load_model
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from torch.utils.data import BatchSampler

    from ragcun_cli.data.batches import epoch_order

    class InOrder(SentenceTransformerTrainer):
        """Takes the batches in the order of the file."""

        def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:
            return Batches(range(len(dataset)), batch_size, drop_last)

    class Batches(BatchSampler):
        def set_epoch(self, epoch: int) -> None:
            """One epoch only."""

    lines = [json.loads(line) for line in (options.folder / "triples.jsonl").read_text().splitlines()]
    # The order that ragcun draws, so that both see the same batches.
    lines = [lines[row] for row in epoch_order(len(lines), seed=0, epoch=0)]
    model = load_model(encoder_folder(options), MAX_LENGTH)
    if options.no_dropout:
        models.without_dropout(model)
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(options.folder / "peer"), num_train_epochs=1, per_device_train_batch_size=options.batch_size,
        learning_rate=RATE, lr_scheduler_type="cosine", warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0,
        torch_compile=options.compile, bf16=options.precision == "bf16",
        fp16=options.precision == "fp16", use_cpu=not torch.cuda.is_available(),
        save_strategy="no", logging_steps=1, report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    clock = Clock()
    trainer = InOrder(
        model=model, args=settings, train_dataset=Dataset.from_list(lines), loss=MultipleNegativesRankingLoss(model),
        callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    measure.report(triples_per_second=options.triples / clock.seconds, memory=memory(torch), losses=losses)


def memory(torch: Any) -> float:
    """Peak bytes: the GPU's allocations, or the process's resident set (kilobytes on Linux)."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def compare(results: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """Print speeds, memory, ratios and how far the losses are apart."""
    ours, theirs = results["ragcun"], results["sentence-transformers"]
    for side, runs in results.items():
        speed = measure.spread([each["triples_per_second"] for each in runs])
        peak = measure.spread([each["memory"] / 1e6 for each in runs], digits=0)
        print(f"{side:<22} {speed} triples/s, peak {peak} MB")
        if utilisation := [each["model_flop_utilisation"] for each in runs if "model_flop_utilisation" in each]:
            print(f"{side:<22} model FLOP utilisation {measure.spread(utilisation)}")
    for name, key in (("speed", "triples_per_second"), ("memory", "memory")):
        print(f"{name:<22} {measure.ratio([each[key] for each in ours], [each[key] for each in theirs])}")
    hours = {side: 1.5e6 / statistics.median(each["triples_per_second"] for each in runs) / 3600
             for side, runs in results.items()}  # fmt: skip
    print(f"{'500k triples, 3 epochs':<22} " + ", ".join(f"{side} {each:.1f} hours" for side, each in hours.items()))
    differences = [abs(a - b) for a, b in zip(ours[0]["losses"], theirs[0]["losses"], strict=True)]
    print(f"{'losses':<22} first {ours[0]['losses'][0]:.4f} and {theirs[0]['losses'][0]:.4f}, at most "
          f"{max(differences):.1e} apart in {len(differences)} steps")  # fmt: skip
    if options.no_dropout and options.precision == "no" and max(differences) > 1e-3:
        raise SystemExit("the losses differ: this is not the same work")


if __name__ == "__main__":
    main()
