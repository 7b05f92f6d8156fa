"""An encoder as one ONNX graph: token ids and mask in, embeddings out, for any number of texts of any length.

The graph is transformers' own forward with padding; ragcun's packed path gives the same up to rounding, which is
checked before the file gets its name.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ragcun_cli.errors import ModelError
from ragcun_cli.imports import require_onnx
from ragcun_cli.model.encoder import IsotropicGaussianEncoder

FILE = "model.onnx"
TOLERANCE = 1e-4  # of an embedding's values
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "sentence_embedding"
TRACED_SHAPE = (2, 8)  # texts and tokens; neither is 1, which the exporter would take for a constant
# Of different lengths, so that padding and both dynamic axes are compared.
CHECKED_TEXTS = (
    "isotropy",
    "Does making embeddings isotropic make dense retrieval better?",
    "A passage that is longer than the others: dense retrieval compares the embedding of a query with those of all "
    "passages, and returns the nearest. " * 8,
)


class _Whole(nn.Module):
    """From ids (n, tokens) and mask (n, tokens) to embeddings (n, output_dim)."""

    def __init__(self, encoder: IsotropicGaussianEncoder) -> None:
        super().__init__()
        self.network = encoder.network
        self.head = encoder.head
        self.unit_norm = encoder.settings.unit_norm_features

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1)
        embeddings: Tensor = self.head(functional.normalize(mean, dim=-1) if self.unit_norm else mean)
        return embeddings


def export_onnx(encoder: IsotropicGaussianEncoder, folder: Path) -> float:
    """Write model.onnx into `folder`; the encoder is left in evaluation mode on the CPU.

    Returns:
        The largest difference between a value and ragcun's own embeddings, over texts of several lengths.

    Raises:
        EnvironmentUnfit: if a package is missing.
        ModelError: if the graph cannot be made, or its values differ by more than 1e-4.
    """
    require_onnx()
    encoder.to("cpu").eval()
    network: Any = encoder.network
    # The library's fused attention looks at the mask's values, which a graph cannot.
    network.set_attn_implementation("eager")
    tokens = min(TRACED_SHAPE[1], encoder.settings.max_length)
    ids = torch.full((TRACED_SHAPE[0], tokens), encoder.pad_id + 1)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("tokens", min=2, max=encoder.settings.max_length)
    axes = {0: batch, 1: length}
    try:
        with _quiet():
            torch.onnx.export(
                _Whole(encoder).eval(),
                (ids, torch.ones_like(ids)),
                str(folder / FILE),
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=dict.fromkeys(INPUTS, axes),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter meets in a network of another family
        cause = error.__cause__ or error  # the exporter wraps it in advice
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from None
        reason = next(iter(str(cause).strip().splitlines()), repr(cause))
        raise ModelError(f"{type(network).__name__}: cannot be written as ONNX: {reason}") from None
    difference = largest_difference(encoder, folder / FILE, CHECKED_TEXTS)
    if not difference <= TOLERANCE:
        raise ModelError(
            f"{FILE}: its values differ by {difference:.1g} from those of the model (allowed: {TOLERANCE:g})"
        )
    return difference


def largest_difference(encoder: IsotropicGaussianEncoder, path: Path, texts: Sequence[str]) -> float:
    """Return the largest difference between the graph and `encoder.encode`, for texts together and each alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = 0.0
    for some in (texts, *([text] for text in texts)):
        batch = encoder.tokenize(some)
        ids = np.full((len(batch), int(batch.lengths.max())), encoder.pad_id, dtype=np.int64)
        mask = np.arange(ids.shape[1])[None, :] < batch.lengths[:, None]
        ids[mask] = batch.ids
        (embeddings,) = session.run(None, dict(zip(INPUTS, (ids, mask.astype(np.int64)), strict=True)))
        found = max(found, float(np.abs(embeddings - encoder.encode(some)).max()))
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks about axes that are one."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
