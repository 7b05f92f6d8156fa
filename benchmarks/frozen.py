"""Three epochs of the frozen arm against sentence-transformers' trainer with its encoder frozen.

    python benchmarks/frozen.py [--triples 640] [--runs 2] [--threads 2]

ragcun passes each distinct text through the encoder once and trains the head on what it gave; the clock runs over
loading the model, encoding into an empty cache, three epochs with SIGReg and the variance term, and saving every
epoch's model. The peer's clock runs over its training loop alone: MiniLM frozen, a Dense layer to 512 dimensions,
MultipleNegativesRankingLoss. Targets: >= 5x, and three epochs <= 1.15 x one encoding pass over the same texts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import models
import texts

MAX_LENGTH = 256
EPOCHS = 3


def main() -> None:
    """Train both sides in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triples", type=int, default=640)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=["ragcun", "sentence-transformers"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        import torch

        torch.set_num_threads(options.threads)
        {"ragcun": train_ragcun, "sentence-transformers": train_peer}[options.side](options.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "triples.jsonl"
        writer = texts.Writer(models.minilm() / "vocab.txt", seed=0)
        file.write_text("".join(json.dumps(each) + "\n" for each in writer.triples(options.triples)), encoding="utf-8")
        common = ["--file", str(file), "--threads", str(options.threads)]
        sides = {side: [*common, "--side", side] for side in ("ragcun", "sentence-transformers")}
        results = measure.alternate(__file__, sides, options.runs)
    ours, theirs = ([each["seconds"] for each in results[side]] for side in sides)
    passes = [each["encoding_pass"] for each in results["ragcun"]]
    print(f"three epochs, ragcun                 {measure.spread(ours)} s")
    print(f"three epochs, sentence-transformers  {measure.spread(theirs)} s: {measure.ratio(theirs, ours)}")
    print(f"one encoding pass                    {measure.spread(passes)} s: three epochs are "
          f"{measure.ratio(ours, passes)} of it")  # fmt: skip


def train_ragcun(file: Path) -> None:
    """One encoding pass, then the frozen arm from an empty cache."""
    from ragcun_cli.data.triples.prepared import open_triples
    from ragcun_cli.model import IsotropicGaussianEncoder
    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.train.arm import train_arm

    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAGCUN_CACHE"] = str(Path(folder) / "cache")
        values = {
            "base_model": models.MINILM, "data.train": file, "data.dev": "null", "max_length": MAX_LENGTH,
            "epochs": EPOCHS, "warmup_steps": 0, "output_dir": Path(folder) / "run",
        }  # fmt: skip
        recipe = load_recipe("frozen", [f"{key}={value}" for key, value in values.items()])
        encoder = IsotropicGaussianEncoder.untouched(models.MINILM)
        distinct = list(open_triples(file)[0].texts)
        encoder.encode(distinct[:100])
        started = time.perf_counter()
        encoder.encode(distinct)
        encoding_pass = time.perf_counter() - started
        started = time.perf_counter()
        train_arm(recipe)
        measure.report(seconds=time.perf_counter() - started, encoding_pass=encoding_pass)


def train_peer(file: Path) -> None:
    """Three epochs of the peer's trainer with only its last layer trainable."""
    import torch
    from datasets import Dataset
    from peer import Clock, load_model
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.models import Dense
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    model = load_model(models.minilm(), MAX_LENGTH)
    model.requires_grad_(False)
    model.append(Dense(384, 512, activation_function=torch.nn.Identity()))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = SentenceTransformerTrainingArguments(
            output_dir=folder, num_train_epochs=EPOCHS, per_device_train_batch_size=16, learning_rate=5e-4,
            use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        SentenceTransformerTrainer(
            model=model, args=settings, train_dataset=Dataset.from_list(lines),
            loss=MultipleNegativesRankingLoss(model), callbacks=[clock],
        ).train()  # fmt: skip
    measure.report(seconds=clock.seconds)


if __name__ == "__main__":
    main()
