"""The dev set's texts, encoded by all processes together, and abandoned when the run is asked to stop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ragcun_cli.arrays import Vectors
from ragcun_cli.evaluate.scoring import Encode
from ragcun_cli.model.feature_store import BLOCK_TEXTS
from ragcun_cli.train.stopping import Reason, StopRequests
from ragcun_cli.train.world import World, gather_rows


class ScoringAbandoned(Exception):
    """The run stops; its dev score is made when it goes on."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.sentence())
        self.reason = reason


def encode_together(encode: Encode, world: World, stop: StopRequests, device: torch.device) -> Encode:
    """`encode` spread over the processes; each gets all embeddings.

    Raises (when called):
        ScoringAbandoned: in all processes, if one has been asked to stop; they ask each other after every block.
    """
    block_texts = BLOCK_TEXTS[device.type] * world.size

    def together(texts: Sequence[str]) -> Vectors:
        blocks = []
        for start in range(0, len(texts), block_texts):
            blocks.append(_block(encode, texts[start : start + block_texts], world, device))
            reason, _ = stop.agreed(device)
            if reason:
                raise ScoringAbandoned(reason)
        return np.concatenate(blocks) if len(blocks) != 1 else blocks[0]

    return together


def _block(encode: Encode, texts: Sequence[str], world: World, device: torch.device) -> Vectors:
    if world.size == 1:
        return encode(texts)
    places = [np.arange(rank, len(texts), world.size) for rank in range(world.size)]
    # Of fewer texts than processes everybody encodes all: an empty share would have no width.
    if len(texts) < world.size:
        return encode(texts)
    own = torch.from_numpy(encode([texts[place] for place in places[world.rank].tolist()])).to(device)
    gathered: Vectors = gather_rows(own, places).cpu().numpy()
    return gathered
