"""What the benchmarks that train with sentence-transformers share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Wall seconds of the training loop."""

    seconds = 0.0
    _started = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Called by the trainer."""
        self._started = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Called by the trainer."""
        synchronise()
        self.seconds = time.perf_counter() - self._started


def load_model(folder: Path, max_length: int) -> SentenceTransformer:
    """An encoder that trains nothing but itself: no model card is prepared."""
    model = SentenceTransformer(str(folder))
    model.max_seq_length = max_length
    model.model_card_data.generate_widget_examples = False
    return model


def synchronise() -> None:
    """Wait until a GPU, if any, has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
