"""Forward and backward passes of an encoder without padding against transformers' own padded forward.

    python benchmarks/passes.py [--batch-size 256 16] [--passes 8] [--precision bf16|no]

BERT-base and MPNet-base with random weights and dropout, on the GPU if there is one; queries, positives and negatives
with the lengths of MS MARCO's, four batches in turn. The peer encodes queries, positives and negatives in three padded
passes, as sentence-transformers does. The share of the GPU's peak is printed where the peak is known.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import numpy as np
import torch
from peer import synchronise
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel

from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.model.packed import PackedNetwork, packed_network
from ragcun_cli.train.hardware import find_hardware
from ragcun_cli.train.speed import peak_flops, training_flops_per_token

BATCHES = 4
PADDING = 1


def main() -> None:
    """Time both sides of both families at each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[256, 16])
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--precision", choices=["no", "bf16"], default="bf16")
    options = parser.parse_args()
    hardware = find_hardware()
    print(f"{hardware.name}, torch {torch.__version__}")
    networks: dict[str, Any] = {
        "BERT-base": BertModel(BertConfig(), add_pooling_layer=False),
        "MPNet-base": MPNetModel(MPNetConfig(), add_pooling_layer=False),
    }
    for triples in options.batch_size:
        batches = [made_up_batch(triples, seed) for seed in range(BATCHES)]
        tokens = float(np.mean([batch.lengths.sum() for batch in batches]))
        for name, network in networks.items():
            network.to(hardware.device).train()
            packed = packed_network(network)
            assert packed is not None
            flops = tokens * training_flops_per_token(network, tokens / (3 * triples))
            sides = {
                "ragcun": functools.partial(without_padding, packed),
                "transformers": functools.partial(padded, network),
            }
            seconds = {side: time_passes(network, run, batches, options) for side, run in sides.items()}
            for side, each in seconds.items():
                peak = peak_flops(hardware)
                share = "" if peak is None else f", {100 * flops / float(np.median(each)) / peak:.1f} % of the peak"
                print(f"{name}, {triples} triples, {side:<12} {measure.spread([1e3 * one for one in each])} ms{share}")
            print(f"{name}, {triples} triples, speed {measure.ratio(seconds['transformers'], seconds['ragcun'])}")


def made_up_batch(triples: int, seed: int) -> TokenBatch:
    """Random tokens with MS MARCO's lengths: some 9 a query and 78 a passage; sorted by length."""
    random = np.random.default_rng(seed)
    queries = np.clip(random.normal(9.5, 3, triples), 4, 30)
    spread = np.sqrt(np.log(1 + (32 / 78) ** 2))
    passages = np.clip(random.lognormal(np.log(78) - spread**2 / 2, spread, 2 * triples), 16, 384)
    lengths = np.sort(np.concatenate([queries, passages]).astype(np.int64))
    return TokenBatch(random.integers(1000, 30_000, int(lengths.sum())).astype(np.uint16), lengths)


def without_padding(network: PackedNetwork, batch: TokenBatch) -> torch.Tensor:
    """ragcun's forward: all texts as one row."""
    return network.states(batch).float().sum()


def padded(network: Any, batch: TokenBatch) -> torch.Tensor:
    """transformers' forward, for queries (the shortest third), then for two halves of the passages."""
    third, ends = len(batch) // 3, np.cumsum(batch.lengths)
    passages = np.random.default_rng(0).permutation(np.arange(third, len(batch)))
    sums = []
    for texts in (np.arange(third), passages[:third], passages[third:]):
        lengths = torch.from_numpy(batch.lengths[texts])
        mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
        ids = torch.full(mask.shape, PADDING)
        ids[mask] = torch.from_numpy(
            np.concatenate([batch.ids[ends[text] - batch.lengths[text] : ends[text]] for text in texts]).astype(
                np.int64
            )
        )
        mask, ids = mask.to(network.device), ids.to(network.device)
        states = network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        sums.append((states.float() * mask[..., None]).sum())
    return torch.stack(sums).sum()


def time_passes(
    network: Any, run: Callable[[TokenBatch], torch.Tensor], batches: list[TokenBatch], options: argparse.Namespace
) -> list[float]:
    """Seconds of each forward and backward pass, after one over each batch that is not counted."""
    kind = network.device.type
    precision: Any = torch.autocast(kind, torch.bfloat16) if options.precision == "bf16" else contextlib.nullcontext()
    seconds = []
    for number in range(len(batches) + options.passes):
        synchronise()
        started = time.perf_counter()
        with precision:
            total = run(batches[number % len(batches)])
        total.backward()
        synchronise()
        seconds.append(time.perf_counter() - started)
        network.zero_grad(set_to_none=True)
    return seconds[len(batches) :]


if __name__ == "__main__":
    main()
